"""The teacher ControlNet's residuals of all training items, kept on disk on request.

In: samples with condition maps, the function that asks the teacher. Out: shards in a work folder
and a function that reads them. They are large (12.8 MiB an item in float16 for SD at 512 px,
against 32 KiB for an output), so the bytes are said first and a budget is kept. They are float32,
so that losses are those of the teacher asked on the spot.
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distillery.core.errors import DamagedError, DistilleryError
from distillery.core.shards import list_shards, shard_name, write_tensor_shard
from distillery.core.sizes import in_bytes
from distillery.diffusion.batch import Batch, Samples
from distillery.diffusion.control import Residuals
from distillery.diffusion.objectives import Diffusion
from distillery.teacher.cache.files import RecordTable
from distillery.teacher.cache.size import HEADER_BYTES
from distillery.train.loop import Place

SHARD_SIZE_ITEMS = 32


def write_residuals(
    place: Place,
    sets: Sequence[Samples],
    ask: Residuals,
    diffusion: Diffusion,
    budget_bytes: int,
) -> None:
    """Write the residuals of all items of `sets` to the place's folder; shards there are kept.

    Raises DistilleryError before anything is written where they take more than `budget_bytes` or
    than the disk has free.
    """

    def residuals(samples: Samples, items: np.ndarray) -> tuple[list[str], list[Tensor]]:
        batch = samples.batch(items).to(place.device)
        return item_keys(batch), ask(batch, diffusion.noisy(batch))

    folder, num_items = place.folder, sum(len(samples) for samples in sets)
    first = next(samples for samples in sets if len(samples))
    each = sum(4 * r[0].numel() for r in residuals(first, np.arange(1))[1]) + HEADER_BYTES
    folder.mkdir(parents=True, exist_ok=True)
    print(_require_room(each * num_items, budget_bytes, folder), file=sys.stderr)
    shards = [
        (samples, items)
        for samples in sets
        for items in np.split(np.arange(len(samples)), range(0, len(samples), SHARD_SIZE_ITEMS))
        if len(items)
    ]
    with place.progress(num_items, unit="item", what="residuals") as bar:
        for index, (samples, items) in enumerate(shards):
            path = folder / shard_name(index, "safetensors")
            if not path.exists():
                keys, outputs = residuals(samples, items)
                arrays = {f"{n:02d}": r.float().cpu().numpy() for n, r in enumerate(outputs)}
                write_tensor_shard(path, keys, arrays)
            bar.update(len(items))


def item_keys(batch: Batch) -> list[str]:
    """`<record>@<timestep>@<first value of the noise>`, different for all slots of a record."""
    first = batch.noise.flatten(1)[:, 0].tolist()
    named = zip(batch.keys, batch.timesteps.tolist(), first, strict=True)
    return [f"{key}@{timestep}@{value.hex()}" for key, timestep, value in named]


def cached_residuals(folder: Path) -> Residuals:
    """The residuals as `write_residuals` left them; each is checked when it is first read."""
    table = RecordTable(list_shards(folder, "safetensors"))
    places = {key: index for index, key in enumerate(table.keys)}

    def read(batch: Batch, noisy: Tensor) -> list[Tensor]:
        try:
            rows = [table.row(places[key]) for key in item_keys(batch)]
        except KeyError as error:
            raise DistilleryError(f"{folder}: no residuals of {error}; remove the folder") from None
        except DamagedError as error:
            reason = str(error).split(";")[0]
            raise DamagedError(f"{reason}; remove {folder} and run the stage again") from None
        stacked = (np.stack([row[name] for row in rows]) for name in sorted(rows[0]))
        return [torch.from_numpy(array).to(noisy.device) for array in stacked]

    return read


def _require_room(num_bytes: int, budget_bytes: int, folder: Path) -> str:
    free = shutil.disk_usage(folder).free
    needed, budget, left = map(in_bytes, (num_bytes, budget_bytes, free))
    estimate = f"residuals: about {needed} to write (budget {budget}, free {left})"
    if num_bytes > min(budget_bytes, free):
        over = "budget" if num_bytes > budget_bytes else "free space"
        raise DistilleryError(
            f"distill_controlnet.residuals: {estimate}: over the {over}; raise budget_bytes, train "
            "on fewer images, or set cache: false to ask the teacher at every step"
        )
    return estimate
