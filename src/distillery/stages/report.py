"""Stage `report`: everything that was measured in, one page and its tables out."""

from distillery.core.run import Run, read_times
from distillery.params import Params
from distillery.report.build import Folders, Setup, build_report
from distillery.stage import In, Out, stage


# Methods, plans, kinds and variants: which models there are.
@stage(
    reads=[
        "seed", "seeds", "device", "ingest.source", "data.resolution_px", "generate.num_samples",
        "generate.num_inference_steps", "generate.guidance_scale", "generate.whole",
        "evaluate.feature_extractor", "prepare_teacher.source", "report", "init_student.methods",
        "init_student.plans", "cache_teacher.control_kinds", "distill_unet.variants",
        "finetune_control.variants", "distill_controlnet.variants", "distill_guidance.variants",
    ]
)  # fmt: skip
def report(
    params: Params, run: Run, curated: In, selection: In, init: In, models: In, samples: In,
    metrics: In, results: In, reports: Out, conditions: In | None = None,
) -> None:  # fmt: skip
    """Write index.html, claims.json, tables/*.csv and cards/<family>/<variant>.md."""
    facts = [
        ("data", params.ingest.source),
        ("resolution", f"{params.data.resolution_px} px"),
        ("teacher", params.prepare_teacher.source),
        ("seed of data and noise", params.seed),
        ("training seeds", ", ".join(map(str, params.seeds))),
        ("device", params.device),
        ("images per model", params.generate.num_samples),
        ("sampling", f"DDIM, {params.generate.num_inference_steps} steps"),
        ("guidance", params.generate.guidance_scale),
        ("feature extractor", params.evaluate.feature_extractor),
    ]
    setup = Setup(
        title=params.report.title,
        source=params.ingest.source,
        seeds=params.seeds,
        num_gallery_samples=params.report.num_gallery_samples,
        facts=facts,
        times=read_times(run.work_root),
        whole={name: parts.model_dump() for name, parts in params.generate.whole.items()},
    )
    folders = Folders(curated, selection, init, models, samples, metrics, results, conditions)
    build_report(folders, reports, setup)


if __name__ == "__main__":
    report.main()
