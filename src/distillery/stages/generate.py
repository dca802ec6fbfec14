"""Stage `generate`: the teacher or a student in, images of the test prompts out."""

import torch

from distillery.data.loader import iter_records
from distillery.device import claim_device
from distillery.params import Params
from distillery.run import Run
from distillery.samples import Prompt, pick_prompts
from distillery.sampling import Sampler, load_unet, seed_folder, write_samples
from distillery.stage import In, Out, stage
from distillery.teacher.load import load_teacher


@stage(reads=["seed", "seeds", "device", "num_threads", "data.resolution_px", "generate"])
def generate(
    params: Params, run: Run, variant: str, teacher: In, model: In, curated: In, selection: In,
    samples: Out,
) -> None:  # fmt: skip
    """Sample every training seed's model with the same prompts and noise."""
    settings = params.generate
    family, _, name = variant.partition("/")
    dtype = getattr(torch, settings.dtype)
    loaded = load_teacher(teacher, claim_device(params.device), dtype)
    sampler = Sampler(
        loaded,
        settings.num_inference_steps,
        1.0 if name == "unguided" else settings.guidance_scale,
        params.data.resolution_px,
        params.seed + (settings.seed_offset if name == "guided_offset" else 0),
    )
    records = iter_records(curated, selection, splits={"test"})
    prompts = pick_prompts((Prompt(r.key, r.caption) for r in records), settings.num_samples)
    seeds = params.seeds[:1] if family == "teacher" else params.seeds
    with run.progress(len(prompts) * len(seeds), unit="image") as progress:
        for seed in seeds:
            if family != "teacher":
                folder = seed_folder(model, seed, seeds)
                sampler = sampler.with_unet(load_unet(folder, loaded.unet.device, dtype))
            write_samples(
                samples / f"seed-{seed}", sampler, prompts, settings.batch_size, run,
                progress.update,
            )  # fmt: skip


if __name__ == "__main__":
    generate.main()
