"""Stage `profile`: the teacher and all students in, what each of them costs out."""

from distillery.core.artifacts import write_json
from distillery.core.device import claim_device
from distillery.core.run import Run
from distillery.cost.profile import load_shared, num_rounds, profile_file, profile_models
from distillery.families.profiled import open_models
from distillery.params import Params
from distillery.stage import In, Out, stage


# Variants: which models there are.
@stage(
    reads=["device", "num_threads", "profile", "distill_unet.variants", "finetune_control.variants",
           "distill_controlnet.variants", "distill_guidance.variants", "generate.whole"]
)  # fmt: skip
def profile(params: Params, run: Run, teacher: In, models: In, metrics: Out) -> None:
    """Count parameters and operations; time evaluations and training steps on this machine."""
    settings, device = params.profile, claim_device(params.device)
    whole = {name: parts.model_dump() for name, parts in params.generate.whole.items()}
    opened = open_models(teacher, models, whole, device)
    with run.progress(num_rounds(opened, settings.num_repeats), unit="run") as progress:
        quantities = profile_models(
            opened,
            load_shared(teacher),
            device,
            batch_size=settings.batch_size,
            num_repeats=settings.num_repeats,
            on_repeat=progress.update,
        )
    write_json(metrics, profile_file(quantities, device, teacher=teacher, models=models))


if __name__ == "__main__":
    profile.main()
