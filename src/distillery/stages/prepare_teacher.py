"""Stage `prepare_teacher`: a folder, a hub id or a recipe in, a checked diffusers folder out."""

from pathlib import Path

from distillery.core.artifacts import hash_json, write_json
from distillery.core.run import Run
from distillery.params import Params, read_values
from distillery.stage import In, Out, stage
from distillery.teacher.copy import copy_teacher, replace_controlnet
from distillery.teacher.examine import require_controlnet, require_teacher
from distillery.teacher.fingerprint import FINGERPRINT, fingerprint
from distillery.teacher.source import find_controlnet, find_teacher


# Not `device` and `num_threads`: a training takes them from its recipe, a copy needs neither.
@stage(reads=["prepare_teacher"])
def prepare_teacher(params: Params, run: Run, scenes_teacher: In, teacher: Out) -> None:
    """Fetch or train the teacher, check that it can be distilled and record what it is."""
    wanted = params.prepare_teacher
    if wanted.train:
        source = _train(params, run.work)
    elif wanted.source == "scenes":
        source = scenes_teacher
    else:
        source = find_teacher(wanted.source, mirrors=wanted.mirrors, revision=wanted.revision)
    require_teacher(source)
    copy_teacher(source, teacher, wanted.sha256)
    for kind, place in wanted.controlnets.items():
        found = find_controlnet(kind, place)
        require_controlnet(kind, found, source)
        replace_controlnet(kind, found, teacher)
    write_json(teacher / FINGERPRINT, fingerprint(teacher))


def _train(params: Params, work: Path) -> Path:
    from distillery.core.device import claim_device
    from distillery.scenes_teacher.recipe import train_scenes_teacher

    written = read_values(Path(params.prepare_teacher.recipe))[0]
    recipe = written["recipe"]
    work = work / hash_json(recipe)[:16]
    train_scenes_teacher(
        recipe,
        work / "teacher",
        work / "parts",
        num_threads=written["num_threads"],
        seed=written["seed"],
        device=str(claim_device(written["device"])),
    )
    return work / "teacher"


if __name__ == "__main__":
    prepare_teacher.main()
