"""Stage `evaluate`: samples of one model in, its metrics with intervals out."""

from pathlib import Path
from typing import Any

from distillery.core.artifacts import content_of, write_json
from distillery.core.device import claim_device
from distillery.core.run import Run
from distillery.data.conditions.kind import BUILTIN
from distillery.families.comparisons import comparisons
from distillery.families.distances import Asking, distances_of, reconstruct
from distillery.families.load import Folders
from distillery.metrics.controlled import control_judge
from distillery.metrics.evaluation import (
    ceiling,
    load_images,
    load_records,
    measure_samples,
)
from distillery.metrics.features import load_extractor
from distillery.metrics.intervals import metrics_file
from distillery.metrics.lpips_networks import load_lpips
from distillery.metrics.meter import Tools
from distillery.metrics.redrawn import SCENES
from distillery.params import Params
from distillery.stage import In, Out, stage

# What draws maps of images: keys of `extract_conditions`.
ANNOTATORS = ("segmentation", "softedge", "depth", "normal", "pose", "pose_detector")
OF_SCENES = ("depth", "normal")  # follow from the regions that the reader sees


@stage(
    reads=[
        "seed", "seeds", "device", "num_threads", "data.resolution_px", "ingest.source",
        "cache_teacher.num_slots", "generate.guidance_scale", "evaluate",
        "extract_conditions.segmentation", "extract_conditions.softedge",
        "extract_conditions.depth", "extract_conditions.normal", "extract_conditions.pose",
        "extract_conditions.pose_detector",
    ]
)  # fmt: skip
def evaluate(
    params: Params, run: Run, variant: str, samples: In, curated: In, selection: In, teacher: In,
    model: In, metrics: Out, reference: In | None = None, offset_reference: In | None = None,
    conditions: In | None = None, backbone: In | None = None, controlnet: In | None = None,
) -> None:  # fmt: skip
    """Measure against real images, the teacher's images, the captions and the condition maps."""
    settings, device = params.evaluate, claim_device(params.device)
    tools = _tools(settings, teacher, device)
    resolution_px, is_scenes = params.data.resolution_px, params.ingest.source == "scenes"
    records = load_records(samples, curated, selection, resolution_px, settings.num_samples)
    compared, skipped = comparisons(
        variant, samples, records.real, lambda folder: load_images(folder, records.keys),
        reference, offset_reference,
    )  # fmt: skip
    judges = []
    if conditions is not None:
        drawn_by = {name: getattr(params.extract_conditions, name) for name in ANNOTATORS}
        if is_scenes:
            drawn_by |= {n: SCENES for n in OF_SCENES if drawn_by[n] in (BUILTIN, None)}
            drawn_by["segmentation"] = SCENES
        judges.append(control_judge(tools, records, conditions, resolution_px, drawn_by, device))
    by_seed, missing = measure_samples(
        tools, samples, records, compared, judges, is_scenes=is_scenes
    )
    folders = Folders(
        teacher, model, params.seeds[0], [s for s in params.seeds if s in by_seed],
        backbone, controlnet, params.generate.guidance_scale,
    )  # fmt: skip
    asking = Asking(
        num_records=settings.num_prediction_samples, num_slots=params.cache_teacher.num_slots,
        plan_seed=params.seed, num_bootstrap=settings.num_bootstrap, resolution_px=resolution_px,
    )  # fmt: skip
    distances, reason = distances_of(run, variant, folders, records, asking, device, conditions)
    by_seed = {seed: by_seed[seed] | distances.get(seed, {}) for seed in by_seed}
    if variant == "teacher/guided" and is_scenes:
        images = records.real.through(reconstruct(teacher, device))
        limits = ceiling(tools, images, records.captions)
        by_seed = {seed: by_seed[seed] | limits for seed in by_seed}
    inputs = {"samples": samples, "reference": reference, "offset_reference": offset_reference,
              "selection": selection, "conditions": conditions, "teacher": teacher,
              "model": model, "backbone": backbone, "controlnet": controlnet}  # fmt: skip
    fingerprints = {name: content_of(path) for name, path in inputs.items() if path is not None}
    everything = metrics_file(by_seed, skipped | missing | reason, fingerprints, records.keys)
    write_json(metrics, everything)


def _tools(settings: Any, teacher: Path, device: Any) -> Tools:
    """The networks that `params.evaluate` names, each loaded once."""
    extractor = load_extractor(settings.feature_extractor, teacher, device)
    is_same = settings.clip_model == settings.feature_extractor
    clip = extractor if is_same else load_extractor(settings.clip_model, teacher, device)
    return Tools(
        extractor,
        clip,
        settings.prompt_prefix,
        settings.num_bootstrap,
        settings.num_blocks,
        None if settings.lpips is None else load_lpips(settings.lpips, teacher, device, clip),
    )


if __name__ == "__main__":
    evaluate.main()
