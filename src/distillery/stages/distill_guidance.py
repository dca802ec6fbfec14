"""Stage `distill_guidance`: a U-Net and the guided teacher's outputs in, a trained student out."""

from distillery.core.run import Run
from distillery.families.guidance.training import GuidanceDistillation, train_guidance
from distillery.params import Params
from distillery.stage import In, Out, stage
from distillery.stages._training import training_job
from distillery.train.sources import Sources


@stage(
    reads=["seeds", "device", "num_threads", "prepare_teacher.source", "distill_guidance.training",
           "distill_guidance.weighting", "distill_guidance.guidance", "distill_guidance.lora",
           "distill_guidance.variants.{variant}"]
)  # fmt: skip
def distill_guidance(
    params: Params, run: Run, variant: str, teacher: In, backbone: In, base: In, cond: In,
    uncond: In, model: Out,
) -> None:  # fmt: skip
    """Train one variant of guidance distillation once for every seed."""
    section = params.distill_guidance
    wanted, guidance = section.variants[variant], section.guidance
    low, high = guidance.scale_range
    distillation = GuidanceDistillation(
        update=wanted.update,
        objective=wanted.objective,
        backbone=wanted.backbone,
        scale_low=low,
        scale_high=high,
        weighting=section.weighting.kind,
        gamma=section.weighting.gamma,
        **guidance.model_dump(exclude={"scale"}),
        **section.lora.model_dump(),
    )
    views = {"cond": cond, "uncond": uncond}
    train_guidance(
        distillation,
        Sources(teacher, base, params.prepare_teacher.source, views),
        backbone,
        training_job(
            params, run, model, section.training,
            steps=wanted.steps, learning_rate=wanted.learning_rate,
        ),
    )  # fmt: skip


if __name__ == "__main__":
    distill_guidance.main()
