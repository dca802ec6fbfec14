"""Stage `profile`: the teacher and all students in, what each of them costs out."""

from distillery.artifacts import write_json
from distillery.device import claim_device
from distillery.metrics.profiling import num_rounds, profile_models
from distillery.params import Params
from distillery.run import Run
from distillery.stage import In, Out, stage


@stage(reads=["device", "num_threads", "profile"])
def profile(params: Params, run: Run, teacher: In, models: In, metrics: Out) -> None:
    """Count parameters and operations; time evaluations and training steps on this machine."""
    settings = params.profile
    with run.progress(num_rounds(teacher, models, settings.num_repeats), unit="run") as progress:
        found = profile_models(
            teacher,
            models,
            claim_device(params.device),
            batch_size=settings.batch_size,
            num_repeats=settings.num_repeats,
            on_repeat=progress.update,
        )
    write_json(metrics, found)


if __name__ == "__main__":
    profile.main()
