"""Stage `init_student`: the teacher's U-Net in, its low-rank decompositions and a report out."""

from distillery.core.artifacts import read_json
from distillery.core.device import claim_device
from distillery.core.run import Run
from distillery.families.unet.init import write_decompositions
from distillery.params import Params
from distillery.stage import In, Out, stage
from distillery.teacher.fingerprint import FINGERPRINT


@stage(reads=["device", "num_threads", "init_student", "cache_teacher.batch_size"])
def init_student(params: Params, run: Run, teacher: In, base: In, init: Out) -> None:
    """Decompose the U-Net layer by layer and say what each layer lost."""
    wanted = params.init_student
    components = read_json(teacher / FINGERPRINT)["components"]
    write_decompositions(
        teacher,
        base.parent,
        init,
        methods=wanted.methods,
        rank=wanted.rank.model_dump(),
        other_params=sum(components[name]["num_parameters"] for name in ("text_encoder", "vae")),
        num_moment_samples=wanted.num_moment_samples,
        batch_size=params.cache_teacher.batch_size,
        device=claim_device(params.device),
    )


if __name__ == "__main__":
    init_student.main()
