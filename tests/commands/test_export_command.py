"""`distillery export` as it is typed: what each model becomes, and what is refused with what."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from diffusers import ControlNetModel, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image

from distillery.cli import main
from distillery.families.description import read_description
from distillery.params.presets import load_preset
from export.conftest import make_project
from project import ROOT


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's `models/`."""
    root = tmp_path_factory.mktemp("project")
    make_project(root)
    return root / "models"


def export(models: Path, model: str, to: str, out: Path, *more: str) -> int:
    """The exit code of one call."""
    with pytest.raises(SystemExit) as ended:
        main(["export", str(models / model), "--to", to, str(out), *more])
    return ended.value.code or 0


@pytest.mark.parametrize("model", ["unet/elr", "guidance/lora_distill_elr", "guidance/told"])
def test_a_unet_becomes_a_pipeline_of_plain_diffusers(models: Path, model: str, tmp_path: Path):
    assert export(models, model, "diffusers", tmp_path / "out") == 0
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "out")
    assert type(pipeline.unet) is UNet2DConditionModel


def test_a_controlnet_of_full_size_becomes_a_plain_one(models: Path, tmp_path: Path):
    assert export(models, "controlnet/original", "diffusers", tmp_path / "out") == 0
    assert type(ControlNetModel.from_pretrained(tmp_path / "out")) is ControlNetModel
    assert export(models, "controlnet/original", "single-file", tmp_path / "c.safetensors") == 0


def test_a_model_behind_a_link_is_found_with_its_teacher(models: Path, tmp_path: Path, capsys):
    (tmp_path / "mine ü").mkdir()
    (tmp_path / "mine ü/elr").symlink_to(models / "unet/elr")
    (tmp_path / "units").symlink_to(models / "unet")
    for number, link in enumerate(("mine ü/elr", "units/elr")):
        assert export(tmp_path, link, "hub", tmp_path / f"out ö/{number}") == 0
        assert (tmp_path / f"out ö/{number}/low_rank_unet.py").is_file()
    assert f"answers as {tmp_path}/units/elr does" in capsys.readouterr().out


def test_files_for_other_tools(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert export(models, "guidance/lora_distill", "kohya", tmp_path / "lora.safetensors") == 0
    assert export(models, "unet/elr", "single-file", tmp_path / "a.safetensors", "--fp16") == 0
    assert export(models, "unet/elr", "comfyui-node", tmp_path / "node.py") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith(f"lora.safetensors is written, and answers as {models}/guidance/"
                            "lora_distill does")  # fmt: skip
    assert "copy it to ComfyUI/custom_nodes" in said[-1]


@pytest.mark.parametrize(
    ("model", "to", "out", "more", "reason"),
    [
        ("unet/elr", "onnx", "a", (), "unknown; use one of diffusers, single-file, kohya, hub"),
        ("unet/elr", "kohya", "a.safetensors", (), "holds no LoRA"),
        ("guidance/lora_distill_elr", "kohya", "a.safetensors", (), "merge both into one dense"),
        ("controlnet/loha", "single-file", "a.safetensors", (), "narrower than its U-Net"),
        ("controlnet/distilled", "diffusers", "a", (), "export --to hub or --to comfyui-node"),
        ("guidance/told", "single-file", "a.safetensors", (), "no such layer; export --to diff"),
        ("unet/lean", "single-file", "a.safetensors", (), "blocks are removed"),
        ("control/elr", "hub", "a", (), "ControlAdapter.from_pretrained"),
        ("control/elr", "diffusers", "a", (), "ControlAdapter.from_pretrained"),
        ("guidance/lora_distill", "comfyui-node", "a.py", (), "export --to kohya"),
        ("unet/elr", "student", "a", (), "is a student's folder already"),
        ("unet/elr", "diffusers", "a", ("--push", "me/x"), "--push goes with --to hub"),
        ("unet/elr", "diffusers", "a", ("--fp16",), "--fp16 goes with --to single-file, not diff"),
        ("unet/elr", "single-file", "a.safetensors", ("--license", "mit"), "goes with --to hub"),
        (
            "unet/elr",
            "hub",
            "a",
            ("--metrics", f"{ROOT}/pyproject.toml"),
            "give the metrics of one",
        ),
        ("unet/elr", "hub", "a", ("--metrics", f"{ROOT}/docs/results/profile"), "Is a directory"),
        ("unet/elr", "hub", "a", ("--private",), "--private goes with --push REPO_ID"),
        ("unet/elr", "hub", "a", ("--push", "me//x"), "--push: Repo id must"),
        ("teacher", "diffusers", "a", (), "student.json: not found"),
        ("guidance/lost", "kohya", "a", (), "models/unet/elr, "),
        ("unet/elr", "diffusers", ".", (), "exists already"),
    ],
)
def test_refusals_name_what_to_do(models, model, to, out, more, reason, tmp_path, capsys):
    assert export(models, model, to, tmp_path / out, *more) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert reason in said[0]
    assert not list(tmp_path.iterdir())


def test_a_whole_student_has_a_folder_that_says_all(models, tmp_path, monkeypatch, capsys):
    """Made of its parts, then drawn from elsewhere without params."""
    whole = models / "whole/mine"
    controlnet = ("--controlnet", str(models / "controlnet/distilled"))
    assert export(models, "guidance/lora_distill_elr", "student", whole, *controlnet) == 0
    assert [file.name for file in whole.iterdir()] == ["student.json"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "maps").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "maps/00000.png")
    asked = ("--prompt", "a star", "--conditions", "maps", "--size", "64", "--steps", "1")
    with pytest.raises(SystemExit) as ended:
        main(["generate", str(whole), *asked, "--out", "images"])
    assert ended.value.code == 0
    assert (tmp_path / "images/00000.png").is_file()
    assert export(models, "whole/mine", "diffusers", tmp_path / "x") == 2
    assert "holds no ControlNet; export both apart" in capsys.readouterr().err
    assert export(models, "whole/mine", "hub", tmp_path / "x", *controlnet) == 2
    assert "has a ControlNet of its own" in capsys.readouterr().err
    shutil.copytree(whole, tmp_path / "moved")
    assert export(tmp_path, "moved", "hub", tmp_path / "x") == 2
    assert "moved: its backbone is not at" in capsys.readouterr().err


def test_a_whole_student_by_its_name(models, tmp_path, monkeypatch):
    params = load_preset(ROOT / "presets/quick.yaml", ROOT / "params.yaml")
    monkeypatch.chdir(models.parent)
    Path("params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json")))
    with pytest.raises(SystemExit) as ended:
        main(["export", "whole/student", "--to", "student", str(tmp_path / "student")])
    assert (ended.value.code or 0) == 0
    named = read_description(tmp_path / "student")
    assert named.name == "whole/student"
    parts = {"model": "guidance/lora_distill_elr", "controlnet": "controlnet/distilled",
             "teacher": "teacher", "backbone": "unet/elr"}  # fmt: skip
    assert named.bases(tmp_path / "student") == {k: models / part for k, part in parts.items()}


@pytest.mark.parametrize(
    "typed",
    [
        "export models/unet/elr --to onnx out",
        "export models/unet/lost --to hub out",
        "export lost --to hub out --push a/b/c",
        "lora-transfer params.yaml models/unet/lost out",
    ],
)
def test_what_is_typed_is_judged_before_anything_is_imported(typed: str):
    """In a process of its own: torch takes seconds."""
    code = (
        "import sys; from distillery.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: sys.exit(end.code + 10 * ('torch' in sys.modules))"
    )
    command = [sys.executable, "-c", code, *typed.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_libraries_say_nothing_of_their_own():
    """Importing the forms warns of a missing torchvision, once in a process."""
    code = (
        "from distillery.commands import export_options, quiet\nquiet.be_quiet()\n"
        "from distillery.commands import export_forms\n"
        "assert tuple(export_forms._TARGETS) == export_options.FORMS"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_metrics_of_something_else_are_no_results(models: Path, tmp_path: Path, capsys):
    for number, (text, said) in enumerate(
        [
            ('{"metrics": {"unet/elr/macs": {"value": 1}}}', "no metrics of a model"),
            ('{"a": 1}', "no metrics of a model"),
            ("[]", "no mapping"),
        ]
    ):
        (tmp_path / f"{number}.json").write_text(text)
        more = ("--metrics", str(tmp_path / f"{number}.json"))
        assert export(models, "unet/elr", "hub", tmp_path / "a", *more) == 2
        assert f"{number}.json: {said}; give" in capsys.readouterr().err


def test_a_base_model_that_is_no_id_is_said(models: Path, tmp_path: Path, capsys):
    assert export(models, "unet/elr", "hub", tmp_path / "a", "--base-model", "scenes") == 0
    assert "base model scenes, which is no id of the hub" in capsys.readouterr().err
    assert export(models, "unet/elr", "hub", tmp_path / "b") == 0
    assert capsys.readouterr().err == ""


def test_parts_that_do_not_go_together(models: Path, tmp_path: Path, capsys):
    for model, other, to, reason in (
        ("unet/elr", "controlnet/loha", "diffusers", "holds no ControlNet; export both apart"),
        ("controlnet/loha", "controlnet/loha", "hub", "goes with a U-Net student"),
        ("unet/elr", "controlnet/loha", "student", "has a guidance student here"),
        ("unet/elr", "unet/elr", "hub", "unet/elr is no ControlNet"),
        ("guidance/lora_distill", "controlnet/loha", "kohya", "a LoRA file holds no ControlNet"),
    ):
        more = ("--controlnet", str(models / other))
        assert export(models, model, to, tmp_path / "a", *more) == 2
        assert reason in capsys.readouterr().err
