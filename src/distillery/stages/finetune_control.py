"""Stage `finetune_control`: a frozen U-Net and condition maps in, a trained control adapter out."""

from distillery.core.run import Run
from distillery.diffusion.control_drop import Drop
from distillery.families.control.training import ControlTuning, train_adapters
from distillery.params import Params
from distillery.stage import In, Out, stage
from distillery.stages._training import training_job
from distillery.train.sources import Sources


@stage(
    reads=["seeds", "device", "num_threads", "prepare_teacher.source", "finetune_control.training",
           "finetune_control.weighting", "finetune_control.losses", "finetune_control.conditions",
           "finetune_control.kronecker", "finetune_control.norm", "finetune_control.drop",
           "finetune_control.variants.{variant}"]
)  # fmt: skip
def finetune_control(
    params: Params, run: Run, variant: str, teacher: In, backbone: In, base: In, conditions: In,
    model: Out,
) -> None:  # fmt: skip
    """Train one variant of Stage II once for every seed; `base` is the cache's view."""
    section = params.finetune_control
    wanted = section.variants[variant]
    update = section.kronecker.model_dump() if wanted.update == "kronecker" else None
    tuning = ControlTuning(
        backbone=wanted.backbone,
        encoder=wanted.encoder,
        kinds=tuple(section.conditions),
        norm=section.norm,
        kronecker=update,
        drop=Drop(**section.drop.model_dump()),
        weighting=section.weighting.kind,
        gamma=section.weighting.gamma,
        **section.losses.model_dump(),
    )
    train_adapters(
        tuning,
        Sources(teacher, base, params.prepare_teacher.source, conditions=conditions),
        backbone,
        training_job(
            params, run, model, section.training,
            steps=wanted.steps, learning_rate=wanted.learning_rate,
        ),
    )  # fmt: skip


if __name__ == "__main__":
    finetune_control.main()
