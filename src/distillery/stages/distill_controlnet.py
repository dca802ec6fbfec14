"""Stage `distill_controlnet`: a teacher ControlNet and its cache in, a trained student out."""

import functools

from distillery.core.run import Run
from distillery.diffusion.controlnet import Factors
from distillery.families.controlnet.start import start_student
from distillery.families.controlnet.training import ControlDistillation, train_controlnets
from distillery.params import Params
from distillery.stage import In, Out, stage
from distillery.stages._training import training_job
from distillery.train.sources import Sources


@stage(
    reads=["seeds", "device", "num_threads", "prepare_teacher.source",
           "distill_controlnet.condition", "distill_controlnet.training",
           "distill_controlnet.weighting", "distill_controlnet.losses", "distill_controlnet.online",
           "distill_controlnet.residuals", "distill_controlnet.variants.{variant}"]
)  # fmt: skip
def distill_controlnet(
    params: Params, run: Run, variant: str, teacher: In, base: In, control: In, conditions: In,
    model: Out,
) -> None:  # fmt: skip
    """Train one student of the teacher's ControlNet once for every seed."""
    section = params.distill_controlnet
    wanted, kept = section.variants[variant], section.residuals
    student = wanted.student if isinstance(wanted.student, str) else wanted.student.model_dump()
    start = functools.partial(
        start_student, student, wanted.init, teacher=teacher, kind=section.condition
    )
    losses = section.losses.model_dump()
    factors = {
        t: losses[f"lambda_{t}"] * (t in wanted.terms) for t in ("diffusion", "teacher", "kd")
    }
    distillation = ControlDistillation(
        kind=section.condition,
        factors=Factors(**factors),
        stats=section.losses.stats,
        axes=section.losses.axes,
        weighting=section.weighting.kind,
        gamma=section.weighting.gamma,
        online=section.online,
        residual_budget_bytes=kept.budget_bytes if kept.cache else None,
    )
    views = {f"control_{section.condition}": control}
    train_controlnets(
        lambda seed, hints: start(hints=hints, seed=seed),
        distillation,
        Sources(teacher, base, params.prepare_teacher.source, views, conditions),
        training_job(
            params, run, model, section.training,
            steps=wanted.steps, learning_rate=wanted.learning_rate,
        ),
    )  # fmt: skip


if __name__ == "__main__":
    distill_controlnet.main()
