"""Writing the teacher cache: `base` from images and captions, further views from `base`.

In: records or a `base` folder, a loaded teacher. Out: shards and `cache.json` in a folder; shards
that an interrupted run finished are taken over, damaged ones are made again. Only records of the
splits train and val are ever written. Not here: the size check, reading.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from distillery.core.errors import DistilleryError
from distillery.core.run import Run
from distillery.core.shards import list_shards, read_tensor_shard, shard_name, write_tensor_shard
from distillery.data.loader import SPLITS, load_image
from distillery.diffusion.batch import Batch
from distillery.diffusion.conditioning import TEXT
from distillery.diffusion.noise import noise_batch, timesteps
from distillery.diffusion.prediction import add_noise, alpha_sigma
from distillery.teacher.cache.files import (
    BASE,
    CACHED_SPLITS,
    TEXT_SHARDS,
    CacheMeta,
    RecordTable,
    open_records,
)
from distillery.teacher.cache.size import CachePlan
from distillery.teacher.cache.views import View
from distillery.teacher.load import Teacher, alphas_cumprod, encode_images, encode_prompts

T = TypeVar("T")
MakeLatents = Callable[[Sequence["Record"]], Tensor]


class Record(Protocol):
    """What is needed of one curated record."""

    key: str
    split: str
    caption: str
    image_bytes: bytes


def _meta(plan: CachePlan, view: str, teacher: Teacher, counts: dict[str, int]) -> CacheMeta:
    return CacheMeta(
        view=view,
        prediction_type=teacher.prediction_type,
        dtype=plan.dtype,
        num_slots=plan.num_slots,
        seed=plan.seed,
        resolution_px=plan.resolution_px,
        counts=counts,
    )


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Consecutive lists of up to `size` items."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def distinct_captions(captions: Iterable[str]) -> list[str]:
    """The empty caption, then the others in order of appearance."""
    return list(dict.fromkeys(["", *captions]))


def write_base(
    read: Callable[[], Iterable[Record]],
    teacher: Teacher,
    out: Path,
    plan: CachePlan,
    run: Run,
    make_latents: MakeLatents | None = None,
) -> None:
    """Latents of all images and embeddings of all distinct captions, in the order of `read()`.

    `make_latents` gives [n, C, h, w] of n records where they are not to be their images'. `read` is
    called twice, so that no more than one shard of images is in memory. A part without records gets
    no shard. Raises DistilleryError for a record of another split than train and val.
    """
    make = make_latents or (lambda records: _encode(records, teacher, plan))
    splits, captions = [], []
    for record in read():
        _require_cached_split(record)
        splits.append(record.split)
        captions.append(record.caption)
    out.mkdir()
    texts = distinct_captions(captions)
    places = {caption: place for place, caption in enumerate(texts)}
    with run.progress(len(texts) + len(splits), unit="record") as bar:
        for index, chunk in enumerate(chunks(texts, plan.shard_size)):
            _finish_once(
                out / f"text-{shard_name(index, 'safetensors')}",
                run,
                lambda path, chunk=chunk: _write_texts(path, chunk, teacher, plan),
            )
            bar.update(len(chunk))
        for index, records in enumerate(chunks(read(), plan.shard_size)):
            _finish_once(
                out / shard_name(index, "safetensors"),
                run,
                lambda path, records=records: _write_latents(path, records, places, make, plan),
            )
            bar.update(len(records))
    counts = {split: splits.count(split) for split in CACHED_SPLITS}
    _meta(plan, BASE, teacher, {**counts, "texts": len(texts)}).write(out)


def write_view(
    view: View, base: Path, teacher: Teacher, out: Path, plan: CachePlan, run: Run
) -> None:
    """The teacher's native outputs at all slots for every record of `base`, shard by shard.

    Raises DistilleryError if `base` was made with other settings, or an output is not finite.
    """
    counts = CacheMeta.read(base).counts
    meta = _meta(plan, view.name, teacher, {split: counts[split] for split in CACHED_SPLITS})
    if (theirs := CacheMeta.read(base).settings()) != meta.settings():
        raise DistilleryError(f"{base}: made with {theirs}, not {meta.settings()}; rerun its stage")
    shards = list_shards(base, "safetensors") if sum(meta.counts.values()) else []
    texts = open_records(base, TEXT_SHARDS)
    out.mkdir()
    with run.progress(sum(meta.counts.values()), unit="record") as bar:
        for shard in shards:
            keys, arrays = read_tensor_shard(shard)
            _finish_once(
                out / shard.name,
                run,
                lambda path, keys=keys, arrays=arrays: write_tensor_shard(
                    path, keys, _outputs(keys, arrays, texts, view, teacher, plan)
                ),
            )
            bar.update(len(keys))
    meta.write(out)


def _finish_once(path: Path, run: Run, write: Callable[[Path], None]) -> None:
    if not run.reuse(path):
        write(path)
        run.finish(path)


def _require_cached_split(record: Record) -> None:
    if record.split not in CACHED_SPLITS:
        raise DistilleryError(
            f"cache_teacher: record {record.key} is of split {record.split}; only "
            f"{' and '.join(CACHED_SPLITS)} may be cached"
        )


def _write_texts(path: Path, captions: Sequence[str], teacher: Teacher, plan: CachePlan) -> None:
    encoded = [encode_prompts(teacher, chunk) for chunk in chunks(captions, plan.batch_size)]
    keys = [hashlib.sha256(caption.encode()).hexdigest() for caption in captions]
    write_tensor_shard(path, keys, {"embedding": _numpy(torch.cat(encoded), keys, plan)})


def _encode(records: Sequence[Record], teacher: Teacher, plan: CachePlan) -> Tensor:
    images = [load_image(record.image_bytes, plan.resolution_px) for record in records]
    return encode_images(teacher, np.stack(images))


def _write_latents(
    path: Path,
    records: Sequence[Record],
    places: dict[str, int],
    make: MakeLatents,
    plan: CachePlan,
) -> None:
    made = [make(chunk) for chunk in chunks(records, plan.batch_size)]
    keys = [record.key for record in records]
    arrays = {
        "latents": _numpy(torch.cat(made), keys, plan),
        "text_index": np.array([places[record.caption] for record in records], dtype=np.int64),
        "split": np.array([SPLITS.index(record.split) for record in records], dtype=np.int8),
    }
    write_tensor_shard(path, keys, arrays)


def _outputs(
    keys: Sequence[str],
    arrays: dict[str, np.ndarray],
    texts: RecordTable,
    view: View,
    teacher: Teacher,
    plan: CachePlan,
) -> dict[str, np.ndarray]:
    """`output` [n, k, C, h, w] and `timesteps` [n, k] of one shard.

    A record without the condition map that the view needs is not asked for: its output is 0.
    """
    device, num_slots = teacher.unet.device, plan.num_slots
    alpha_bar = alphas_cumprod(teacher.scheduler)
    steps = timesteps(plan.seed, keys, num_slots, len(alpha_bar))
    latents = arrays["latents"].astype(np.float32)
    outputs = np.zeros((len(keys), num_slots, *latents.shape[1:]), dtype=plan.dtype)
    able = [r for r, key in enumerate(keys) if view.maps is None or view.maps.is_complete(key)]
    items = [(row, slot) for row in able for slot in range(num_slots)]
    for chunk in chunks(items, plan.batch_size):
        rows, slots = [row for row, _ in chunk], [slot for _, slot in chunk]
        names = [keys[row] for row in rows]
        text = [texts.row(int(arrays["text_index"][row]))["embedding"] for row in rows]
        batch = Batch(
            keys=names,
            latents=torch.from_numpy(latents[rows]),
            noise=noise_batch(plan.seed, names, slots, latents.shape[1:]),
            timesteps=torch.from_numpy(steps[rows, slots]),
            conditioning={TEXT: torch.from_numpy(np.stack(text).astype(np.float32))},
            conditions=view.maps.batch(names) if view.maps else {},
        ).to(device)
        alpha, sigma = alpha_sigma(alpha_bar, batch.timesteps)
        noisy = add_noise(batch.latents, batch.noise, alpha, sigma)
        outputs[rows, slots] = _numpy(view.ask(batch, noisy), names, plan)
    return {"output": outputs, "timesteps": steps}


def _numpy(values: Tensor, keys: Sequence[str], plan: CachePlan) -> np.ndarray:
    """In the cache's dtype, finite there; raises DistilleryError naming the record."""
    array = values.float().cpu().numpy().astype(plan.dtype)
    finite = np.isfinite(array.reshape(len(array), -1)).all(axis=1)
    if not finite.all():
        raise DistilleryError(
            f"cache_teacher: record {keys[int(np.argmin(finite))]}: the teacher's output is not "
            f"finite in {plan.dtype}; set cache_teacher.dtype to fp32"
        )
    return array
