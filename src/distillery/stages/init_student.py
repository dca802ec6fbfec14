"""Stage `init_student`: the teacher's U-Net in, one low-rank decomposition and a report out."""

from distillery.core.artifacts import read_json
from distillery.core.code.lock import current_code
from distillery.core.device import claim_device
from distillery.core.run import Run
from distillery.families.unet.init import METHODS, Decomposition, write_decomposition
from distillery.families.unet.latency_plan import TABLES
from distillery.params import Params
from distillery.stage import In, Out, stage
from distillery.teacher.fingerprint import FINGERPRINT


# Not `init_student.methods` nor all plans: a further start changes no other.
@stage(
    reads=["device", "num_threads", "init_student.rank", "init_student.num_moment_samples",
           "cache_teacher.batch_size", "init_student.plans.{method}?"]
)  # fmt: skip
def init_student(
    params: Params, run: Run, method: str, teacher: In, init: Out,
    base: In | None = None, tables: In | None = None,
) -> None:  # fmt: skip
    """Decompose the U-Net layer by layer and say what each layer lost; `random` gives ranks.

    `method` is one of `init_student.methods`, or the name of a plan.
    """
    wanted = params.init_student
    plan = None if method in METHODS else wanted.plans[method].model_dump()
    components = read_json(teacher / FINGERPRINT)["components"]
    decomposition = Decomposition(
        method=plan["method"] if plan else method,
        rank=wanted.rank.model_dump(),
        other_params=sum(components[name]["num_parameters"] for name in ("text_encoder", "vae")),
        num_moment_samples=wanted.num_moment_samples,
        batch_size=params.cache_teacher.batch_size,
        plan=plan,
        tables=tables or TABLES,
        memo=run.work_root / f"errors-{current_code('init_student').total[:16]}",
    )
    write_decomposition(decomposition, teacher, base, init, claim_device(params.device))


if __name__ == "__main__":
    init_student.main()
