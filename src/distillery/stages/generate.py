"""Stage `generate`: the teacher or a student in, images of the test prompts out."""

import sys

from distillery.core.device import claim_device
from distillery.core.errors import DistilleryError
from distillery.core.precision import torch_dtype
from distillery.core.progress import counting
from distillery.core.run import Run
from distillery.core.runtime import Runtime
from distillery.data.loader import iter_records
from distillery.families import OFFSET
from distillery.families.load import Folders, attach, load_student, open_maps
from distillery.params import Params
from distillery.sampling.sampler import Sampler, write_samples
from distillery.sampling.samples import Prompt, pick_prompts, with_conditions
from distillery.stage import In, Out, stage
from distillery.teacher.load import load_teacher


# Not `generate.whole`: a whole student's parts are inputs, and a further one changes no other.
@stage(
    reads=["seed", "seeds", "device", "num_threads", "data.resolution_px",
           "generate.num_samples", "generate.num_inference_steps", "generate.guidance_scale",
           "generate.batch_size", "generate.dtype", "generate.runtime",
           "generate.matmul_precision", "generate.memory_format", "generate.seed_offset"]
)  # fmt: skip
def generate(
    params: Params, run: Run, variant: str, teacher: In, model: In, curated: In, selection: In,
    samples: Out, backbone: In | None = None, controlnet: In | None = None,
    conditions: In | None = None,
) -> None:  # fmt: skip
    """Sample every training seed's model with the same prompts and noise."""
    settings = params.generate
    device, dtype = claim_device(params.device), torch_dtype(settings.dtype)
    sampler = Sampler(
        load_teacher(teacher, device, dtype),
        settings.num_inference_steps,
        settings.guidance_scale,
        params.data.resolution_px,
        params.seed + (settings.seed_offset if variant.endswith(OFFSET) else 0),
        runtime=Runtime(settings.runtime, settings.matmul_precision, settings.memory_format),
    )
    records = iter_records(curated, selection, splits={"test"})
    prompts = pick_prompts((Prompt(r.key, r.caption) for r in records), settings.num_samples)
    if variant == "teacher/guided" and len(prompts) < settings.num_samples:  # once for all models
        print(
            f"{len(prompts)} test records for generate.num_samples {settings.num_samples}: every "
            "model draws these; ingest more images, or raise deduplicate.split.test",
            file=sys.stderr,
        )
    seeds = params.seeds[:1] if variant.startswith("teacher/") else params.seeds
    num_steps = len(prompts) * len(seeds) * settings.num_inference_steps
    with run.progress(num_steps, unit="step") as progress, counting(progress):
        for seed in seeds:
            folders = Folders(
                teacher, model, seed, params.seeds, backbone, controlnet, settings.guidance_scale
            )
            student = load_student(variant, folders, device, dtype)
            if seed == seeds[0] and (said := student.refuses(settings.guidance_scale)):
                print(said, file=sys.stderr)
            maps = open_maps(student, conditions, sampler.resolution_px)
            own = prompts if maps is None else with_conditions(prompts, student.kinds, maps.has)
            if not own:
                raise DistilleryError(
                    f"{run.label}: no test record has a map of {' or '.join(student.kinds)}"
                )
            drawn = attach(sampler, student, maps)
            write_samples(samples / f"seed-{seed}", drawn, own, settings.batch_size, run)


if __name__ == "__main__":
    generate.main()
