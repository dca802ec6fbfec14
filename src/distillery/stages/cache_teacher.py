"""Stage `cache_teacher`: curated images in, one view of the teacher cache of one part out."""

import functools
import sys

import torch

from distillery.core.device import claim_device
from distillery.core.errors import DistilleryError
from distillery.core.precision import NAMES
from distillery.core.run import Run
from distillery.data.loader import iter_records
from distillery.params import Params
from distillery.sampling.sampler import Sampler
from distillery.sampling.samples import Prompt
from distillery.stage import In, Out, stage
from distillery.teacher.cache.files import BASE, CACHED_SPLITS
from distillery.teacher.cache.size import CacheExtent, require_room
from distillery.teacher.cache.views import open_view, read_maps
from distillery.teacher.cache.write import CachePlan, MakeLatents, write_base, write_view
from distillery.teacher.load import Teacher, load_teacher


# A further view or part must not make the others out of date: they only set the room to ask for.
@stage(
    reads=["seed", "device", "num_threads", "data.resolution_px", "cache_teacher.num_slots",
           "cache_teacher.shard_size_samples", "cache_teacher.batch_size", "cache_teacher.dtype",
           "cache_teacher.generated"],
    unrecorded=["data.parts", "cache_teacher.views", "cache_teacher.budget_bytes"],
)  # fmt: skip
def cache_teacher(
    params: Params, run: Run, view: str, part: int, curated: In, selection: In, teacher: In,
    cache: Out, base: In | None = None, conditions: In | None = None,
) -> None:  # fmt: skip
    """Ask the teacher once, for all trainings to come; say first how many bytes that takes."""
    wanted, seed = params.cache_teacher, params.seed
    plan = CachePlan(
        dtype=NAMES[wanted.dtype],
        num_slots=wanted.num_slots,
        seed=seed,
        resolution_px=params.data.resolution_px,
        shard_size=wanted.shard_size_samples,
        batch_size=wanted.batch_size,
    )
    records = functools.partial(
        iter_records, curated.parent, selection, parts=[part], splits=CACHED_SPLITS
    )
    extent = CacheExtent(len(wanted.views), len(params.data.parts), wanted.budget_bytes)
    captions = [record.caption for record in records()]
    room = require_room(captions, plan, teacher, cache.parent, view, extent)
    print(room, file=sys.stderr)
    device = claim_device(params.device)
    half = wanted.dtype == "fp16" and device.type == "cuda"
    loaded = load_teacher(teacher, device, torch.float16 if half else torch.float32)
    if view == BASE:
        write_base(records, loaded, cache, plan, run, _make_latents(params, loaded))
    elif base is None:
        raise DistilleryError(f"cache_teacher: view {view} needs --base, the view base of its part")
    else:
        maps = read_maps(view, conditions, plan.resolution_px)
        write_view(open_view(view, loaded, teacher, maps), base, loaded, cache, plan, run)


def _make_latents(params: Params, teacher: Teacher) -> MakeLatents | None:
    """The guided teacher's own samples, if they are to be learnt from and not the images."""
    generated = params.cache_teacher.generated
    if generated is None:
        return None
    sampler = Sampler(
        teacher,
        num_inference_steps=generated.num_inference_steps,
        guidance_scale=generated.guidance_scale,
        resolution_px=params.data.resolution_px,
        noise_seed=params.seed,
    )
    return lambda records: sampler.latents([Prompt(r.key, r.caption) for r in records])


if __name__ == "__main__":
    cache_teacher.main()
