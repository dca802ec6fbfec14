"""Stage `evaluate`: samples of one model in, its metrics with intervals out."""

from distillery.artifacts import content_of, write_json
from distillery.device import claim_device
from distillery.metrics.evaluation import ceiling, load_records, measure_samples
from distillery.metrics.features import load_extractor
from distillery.metrics.intervals import metrics_file
from distillery.metrics.measure import Measure
from distillery.metrics.students import prediction_distances, reconstruct
from distillery.params import Params
from distillery.run import Run
from distillery.stage import In, Out, stage


@stage(
    reads=[
        "seed", "seeds", "device", "num_threads", "data.resolution_px", "ingest.source",
        "cache_teacher.num_slots", "evaluate",
    ]
)  # fmt: skip
def evaluate(
    params: Params, run: Run, variant: str, samples: In, reference: In, curated: In,
    selection: In, teacher: In, model: In, metrics: Out,
) -> None:  # fmt: skip
    """Measure against real images, against the guided teacher and against the captions."""
    settings, device = params.evaluate, claim_device(params.device)
    extractor = load_extractor(settings.feature_extractor, teacher, device)
    is_same = settings.clip_model == settings.feature_extractor
    measure = Measure(
        extractor,
        extractor if is_same else load_extractor(settings.clip_model, teacher, device),
        settings.prompt_prefix,
        settings.num_bootstrap,
        settings.num_blocks,
    )
    records = load_records(
        samples, curated, selection, params.data.resolution_px, settings.num_samples
    )
    is_scenes = params.ingest.source == "scenes"
    found, skipped = measure_samples(measure, samples, reference, records, has_reader=is_scenes)
    if not variant.startswith("teacher/"):
        distances = prediction_distances(
            run, teacher, model, params.seeds, records, device,
            num_records=settings.num_prediction_samples, plan_seed=params.seed,
            num_slots=params.cache_teacher.num_slots, num_bootstrap=settings.num_bootstrap,
        )  # fmt: skip
        found = {seed: found[seed] | distances[seed] for seed in found}
    elif variant == "teacher/guided" and is_scenes:
        images = reconstruct(teacher, records.real, device)
        found = {seed: found[seed] | ceiling(measure, images, records.captions) for seed in found}
    inputs = {"samples": samples, "reference": reference, "selection": selection,
              "teacher": teacher, "model": model}  # fmt: skip
    fingerprints = {name: content_of(path) for name, path in inputs.items()}
    write_json(metrics, metrics_file(found, skipped, fingerprints))


if __name__ == "__main__":
    evaluate.main()
