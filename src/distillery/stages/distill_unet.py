"""Stage `distill_unet`: the decomposed teacher and its cache in, a trained student U-Net out."""

import functools

from distillery.core.run import Run
from distillery.families.unet.training import Distillation, start_student, train_students
from distillery.params import Params
from distillery.stage import In, Out, stage
from distillery.stages._training import training_job
from distillery.train.sources import Sources


@stage(
    reads=["seeds", "device", "num_threads", "prepare_teacher.source",
           "distill_unet.training", "distill_unet.kd", "distill_unet.variants.{variant}"]
)  # fmt: skip
def distill_unet(
    params: Params, run: Run, variant: str, teacher: In, init: In, base: In, cond: In, model: Out
) -> None:
    """Train one variant of Stage I once for every seed."""
    wanted, kd = params.distill_unet.variants[variant], params.distill_unet.kd
    start = functools.partial(
        start_student, wanted.architecture, wanted.init, teacher=teacher, init_folder=init
    )
    distillation = Distillation(
        objective=wanted.objective,
        weighting=kd.weighting.kind,
        gamma=kd.weighting.gamma,
        **kd.model_dump(exclude={"weighting"}),
    )
    train_students(
        lambda seed: start(seed=seed),
        distillation,
        Sources(teacher, base, params.prepare_teacher.source, {"cond": cond}),
        training_job(
            params, run, model, params.distill_unet.training,
            steps=wanted.steps, learning_rate=wanted.learning_rate,
        ),
    )  # fmt: skip


if __name__ == "__main__":
    distill_unet.main()
