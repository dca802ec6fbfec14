"""A copy of the repository that tests run as a user runs it.

python tests/project.py FOLDER       make one, with a teacher of random weights
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from distillery.core.code.lock import kept_codes
from distillery.params.merge import lay_over
from distillery.params.rewrite import rewrite

ROOT = Path(__file__).resolve().parent.parent
DVC_TARGETS = ("evaluate_unet@elr", "extract_conditions")


@dataclass(frozen=True)
class Project:
    """A copy of the repository's working tree with the preset quick, run as a user runs it.

    `python`: the folder of the interpreter that stages find.
    """

    root: Path
    python: Path = Path(sys.executable).parent

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start `python -m ...` in it; what it prints goes to one pipe."""
        return self._start("-m", *command)

    def _start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.python / "python"), *arguments], cwd=self.root, text=True,
            env=_environment(self.python), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, *command: str) -> str:
        """Run `python -m ...` in it and return what it printed; failure is an error."""
        return finish(self.start(*command))

    def run_file(self, script: str) -> str:
        """Run a Python file of it and return what it printed; failure is an error."""
        return finish(self._start(script))

    def run_script(self, module: str, script: str) -> None:
        """Run a module of the tests in it, `script` on its standard input; failure is an error."""
        environment = _environment(self.python)
        environment["PYTHONPATH"] += f"{os.pathsep}{ROOT / 'tests'}"
        subprocess.run(
            [str(self.python / "python"), "-m", module], input=script, cwd=self.root, text=True,
            env=environment, check=True,
        )  # fmt: skip

    def git(self, *arguments: str) -> str:
        """Run git in it under a name of its own, and return what it printed."""
        who = ["-c", "user.name=tester", "-c", "user.email=tester@example.org"]
        command = ["git", *who, *arguments]
        return subprocess.run(
            command, cwd=self.root, check=True, capture_output=True, text=True
        ).stdout

    def edit_params(self, old: str, new: str) -> None:
        """Replace a text in params.yaml."""
        path = self.root / "params.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))


def _environment(python: Path) -> dict[str, str]:
    path = os.pathsep.join(map(str, (python, Path(sys.executable).parent, os.environ["PATH"])))
    return {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1", "PYTHONPATH": "src"}


def finish(process: subprocess.Popen[str]) -> str:
    """Wait, and return what it printed; failure is an error."""
    output, _ = process.communicate()
    assert process.returncode == 0, output[-4000:]
    return output


def save_tiny_teacher(folder: Path) -> None:
    """Write a complete teacher with random weights: pipeline, ControlNets, CLIP; some MB."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    from tiny_models import tiny_controlnet, tiny_pipeline

    pipeline = tiny_pipeline()
    pipeline.save_pretrained(folder)
    for kind in ("canny", "sketch", "segmentation"):
        tiny_controlnet(pipeline.unet).save_pretrained(folder / f"controlnet_{kind}")
    text = pipeline.text_encoder.config.to_dict() | {"projection_dim": 16}
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 32, "patch_size": 16, "projection_dim": 16,
    }  # fmt: skip
    torch.manual_seed(1)  # with some others every CLIP score is 0
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    clip.save_pretrained(folder / "clip")
    pipeline.tokenizer.save_pretrained(folder / "clip")
    processor = {"size": 32, "crop_size": 32, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "clip" / "preprocessor_config.json").write_text(json.dumps(processor))


def tiny_params() -> str:
    """The preset quick with the tiny teacher, complete; the shipped file's comments stay."""
    shipped = (ROOT / "params.yaml").read_text()
    quick = yaml.safe_load((ROOT / "presets/quick.yaml").read_text())
    values = lay_over(yaml.safe_load(shipped), quick)
    return rewrite(shipped, lay_over(values, {"paths": {"scenes_teacher": "data/tiny-teacher"}}))


def copy_repository(target: Path, teacher: Path, **changed: Path) -> Project:
    """The working tree with the preset quick and a teacher, committed to a new Git repository."""
    kept_codes()  # stages of the copy find it as long as its source is the same
    ignored = shutil.ignore_patterns("*.egg-info")
    for name in ("src", "workflow", "profiles", "docs/results", "presets"):
        shutil.copytree(ROOT / name, target / name, ignore=ignored)
    shutil.copytree(ROOT / ".dvc", target / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    for name in ("Snakefile", "dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, target / name)
    (target / "params.yaml").write_text(tiny_params())
    shutil.copytree(teacher, target / "data/tiny-teacher")
    project = Project(target, **changed)
    project.git("init", "--quiet")
    project.git("add", ".")
    project.git("add", "--force", "data/tiny-teacher")
    project.git("commit", "--quiet", "--message", "start")
    return project


def main() -> None:
    """Make a copy in a new folder."""
    target = Path(sys.argv[1])
    save_tiny_teacher(target.with_name("teacher"))
    copy_repository(target, target.with_name("teacher"))


if __name__ == "__main__":
    main()
