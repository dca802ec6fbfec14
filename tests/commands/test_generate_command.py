"""`distillery generate`: prompts in, images out, by the names the pipeline gives its models."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from distillery import cli
from distillery.commands import generate as command
from distillery.commands.controls import Given, map_files, of_model, read_given
from distillery.commands.find_model import choose
from distillery.core.artifacts import write_json
from distillery.core.errors import DistilleryError
from distillery.data.conditions import KINDS
from distillery.data.scenes.draw import draw_scene
from distillery.families.description import Description, Sampling, base_of, write_description
from distillery.models.load import load_unet
from distillery.models.lora.files import save_lora
from distillery.models.lora.layers import add_lora
from distillery.models.lora.negative import add_negative, save_negative
from distillery.models.lowrank.factorise import factorise_unet
from distillery.models.lowrank.ranks import plan_ranks
from distillery.sampling.samples import Prompt
from project import tiny_params

PROMPTS = {"a": "a red circle", "b": "a blue square", "c": "a green star"}


@pytest.fixture(scope="module")
def finished_project(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a finished run leaves it, as far as `generate` looks."""
    root = tmp_path_factory.mktemp("project")
    params = yaml.safe_load(tiny_params())
    params["generate"]["dtype"] = "fp32"  # what a folder without params is drawn at
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.copytree(tiny_teacher, root / params["paths"]["teacher"])
    unet = load_unet(tiny_teacher)
    student = factorise_unet(unet, plan_ranks(unet))[0]
    elr = root / params["paths"]["models"] / "unet/elr"
    student.save_pretrained(elr)
    teacher = root / params["paths"]["teacher"]
    write_description(elr, Description("unet", "elr", {"teacher": base_of(teacher, elr)}))
    lora = elr.parents[1] / "guidance/lora"
    save_lora(add_lora(student, r=2, alpha=2.0, targets="attention", seed=0), lora)
    bases = {"teacher": base_of(teacher, lora), "backbone": base_of(elr, lora)}
    write_description(lora, Description("guidance", "lora", bases, (), Sampling(1, 3.0)))
    taught = lora.with_name("taught")
    unet = add_lora(load_unet(tiny_teacher), r=2, alpha=2.0, targets="attention", seed=0)
    save_lora(unet, taught)
    torch.nn.init.normal_(add_negative(unet).negative_prompt.weight)
    save_negative(unet, taught)
    bases = {"teacher": base_of(teacher, taught), "backbone": base_of(teacher, taught)}
    sampling = Sampling(1, 3.0, takes_negative=True)
    write_description(taught, Description("guidance", "taught", bases, (), sampling))
    return root


@pytest.fixture
def project(finished_project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(finished_project)
    write_json(tmp_path / "prompts.json", PROMPTS)
    return finished_project


def _generate(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as raised:
        cli.main(["generate", *map(str, arguments), "--steps", "2"])
    return raised.value.code


def _pixels(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.array(Image.open(path)) for path in sorted(folder.glob("*.png"))}


def test_images_and_prompts_are_what_evaluate_takes(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for model in ("teacher/guided", "unet/elr"):
        out = tmp_path / model.replace("/", "-")
        assert _generate(model, "--prompts", tmp_path / "prompts.json", "--out", out) == 0
        assert list(_pixels(out)) == list(PROMPTS)
        assert json.loads((out / "prompts.json").read_text()) == PROMPTS
    capsys.readouterr()
    with pytest.raises(SystemExit) as raised:
        cli.main(["evaluate", "--images", str(tmp_path / "unet-elr"), "--reference",
                  str(tmp_path / "teacher-guided"), "--out", str(tmp_path / "m.json")])  # fmt: skip
    assert raised.value.code == 0
    assert json.loads((tmp_path / "m.json").read_text())["metrics"]["psnr"]["n"] == 3


def test_noise_follows_the_name_and_an_interrupted_call_goes_on(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "prompts.json"
    assert _generate("unet/elr", "--prompts", file, "--out", tmp_path / "whole") == 0
    calls = []

    def stumble(folder: Path, sampler, prompts, batch_size: int) -> None:
        calls.append([prompt.key for prompt in prompts])
        original(folder, sampler, prompts[: len(prompts) - 1], batch_size)

    original = command._draw
    with monkeypatch.context() as patch:
        patch.setattr(command, "_draw", stumble)
        for _ in range(2):
            arguments = ("unet/elr", "--prompts", file, "--out", tmp_path / "parts")
            assert _generate(*arguments, "--batch-size", "1") == 0
    assert calls == [["a", "b", "c"], ["c"]]
    assert _generate(*arguments) == 0
    whole, parts = _pixels(tmp_path / "whole"), _pixels(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for name, image in whole.items():
        assert np.abs(image.astype(int) - parts[name]).max() <= 1
    assert not np.array_equal(whole["a"], whole["b"])


def test_images_of_other_settings_are_not_mixed(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    assert _generate("unet/elr", "--prompt", "a red circle", "--out", out) == 0
    assert _generate("unet/elr", "--prompt", "a red circle", "--out", out, "--seed", "1") == 2
    assert "holds images of seed 0, not 1; give another --out" in capsys.readouterr().err
    assert _generate("unet/elr", "--prompt", "a star", "--out", out) == 2
    assert "of another prompt, 'a red circle'" in capsys.readouterr().err
    assert (
        _generate("unet/elr", "--prompt", "a red circle", "--prompt", "a star", "--out", out) == 0
    )
    assert list(_pixels(out)) == ["00000", "00001"]


def test_an_image_from_elsewhere_is_not_taken_for_drawn(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    foreign = tmp_path / "out" / "00000.png"
    foreign.parent.mkdir()
    foreign.write_bytes(b"mine")
    assert _generate("unet/elr", "--prompt", "a red circle", "--out", foreign.parent) == 2
    assert "did not draw, first 00000.png; give another --out" in capsys.readouterr().err
    assert foreign.read_bytes() == b"mine"
    assert list(foreign.parent.iterdir()) == [foreign]


def test_a_controlled_model_wants_maps(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    edges, empty = tmp_path / "edges", tmp_path / "empty"
    for folder, strength in ((edges, 255), (empty, 0)):
        folder.mkdir()
        for name in PROMPTS:
            image = np.zeros((64, 64, 3), np.uint8)
            image[20:40, 20:40] = strength
            Image.fromarray(image).save(folder / f"{name}.png")
    asked = ("teacher/control_canny", "--prompts", tmp_path / "prompts.json")
    assert _generate(*asked, "--out", tmp_path / "x") == 2
    assert "needs --conditions, a folder of canny maps" in capsys.readouterr().err
    for folder in (edges, empty):
        out = tmp_path / f"out-{folder.name}"
        assert _generate(*asked, "--conditions", folder, "--out", out) == 0
    assert json.loads((tmp_path / "out-edges/generate.json").read_text())["kind"] == "canny"
    (edges / "b.png").unlink()
    assert _generate(*asked, "--conditions", edges, "--out", tmp_path / "y") == 2
    assert "no map b.png (1 are missing)" in capsys.readouterr().err
    (edges / "b.png").write_bytes(b"no image")
    assert _generate(*asked, "--conditions", edges, "--out", tmp_path / "y") == 2
    assert "b.png: broken" in capsys.readouterr().err


def _maps(folder: Path, kind: str) -> Path:
    (folder / kind).mkdir()
    for number, name in enumerate(PROMPTS):
        map_ = KINDS[kind].of(draw_scene(8, number))
        Image.fromarray(map_).save(folder / kind / f"{name}.png")
    return folder / kind


def test_several_maps_at_once_each_with_its_scale(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    canny, sketch = (_maps(tmp_path, kind) for kind in ("canny", "sketch"))

    def draw(model: str, *maps: str) -> np.ndarray:
        out = tmp_path / f"out{len(list(tmp_path.glob('out*')))}"
        given = [text for map_ in maps for text in ("--conditions", map_)]
        arguments = (model, "--prompts", tmp_path / "prompts.json", "--out", out)
        assert _generate(*arguments, *given) == 0, capsys.readouterr().err
        draw.recorded = json.loads((out / "generate.json").read_text())
        return np.stack(list(_pixels(out).values())).astype(int)

    both = draw("teacher/guided", f"canny={canny}", f"sketch={sketch}:0.5")
    assert (draw.recorded["kind"], draw.recorded["scales"]) == ("canny+sketch", [1.0, 0.5])
    assert {"conditions_canny", "conditions_sketch"} <= set(draw.recorded["contents"])
    alone = draw("teacher/guided", f"canny={canny}")
    assert np.array_equal(alone, draw("teacher/control_canny", str(canny)))
    assert draw.recorded["scales"] is None
    other = draw("teacher/guided", f"sketch={sketch}:0.5", f"canny={canny}")
    assert np.abs(both - other).max() <= 1
    assert np.abs(both - draw("teacher/guided", f"canny={canny}", f"sketch={sketch}")).max() > 1
    assert np.abs(both - alone).max() > 1
    draw("unet/elr", f"sketch={sketch}:0.7", f"canny={canny}:0.7")  # by its teacher's ControlNets


def test_maps_that_are_cropped_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name, size in {"a": (96, 64), "b": (64, 64), "c": (64, 96)}.items():
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    wanted = [Prompt(name, "a star") for name in "abc"]
    student = SimpleNamespace(kinds=("canny",))
    assert map_files(student, [Given(tmp_path, "canny")], wanted, 64) is not None
    said = "2 of 3 maps are not square, first a.png; of each the middle counts, at 64 x 64 px"
    assert said in capsys.readouterr().err


def test_maps_that_cannot_be_taken_are_one_line(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    canny, asked = _maps(tmp_path, "canny"), ("--prompt", "a star", "--out", tmp_path / "x")
    for maps, said in (
        (["hue=a"], "hue is not one of canny, sketch"),
        ([f"canny={canny}:0"], "the scale is 0; give one above 0, up to 10"),
        ([f"pose={canny}"], "unet/elr takes no maps; its teacher has ControlNets for canny"),
        ([str(canny)], "unet/elr takes no condition maps; for its teacher's ControlNets name"),
        ([f"canny={canny}", str(canny)], "several folders need a kind of their own each"),
        ([f"canny={canny}"] * 2, "several folders need a kind of their own each"),
        ([f"canny={tmp_path}/none:0.5"], "none: no folder"),
        (["canny="], "no folder; give KIND=DIR"),
        ([f"canny={canny}", "--condition-kind", "depth"], "names its kind; give one"),
        ([str(canny), "--condition-kind", "hue"], "--condition-kind hue: hue is not one of"),
        ([f"canny={_dark(tmp_path)}"], "dark: no map 00000.png (1 are missing); it has a, ..."),
    ):
        folders = maps[:1] if "--condition-kind" in maps else maps
        given = [text for map_ in folders for text in ("--conditions", map_)]
        assert _generate("unet/elr", *asked, *given, *maps[len(folders) :]) == 2
        assert said in capsys.readouterr().err


def _dark(folder: Path) -> Path:
    (folder / "dark").mkdir()
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(folder / "dark/a.png")
    return folder / "dark"


def test_kinds_are_asked_for_and_maps_that_are_dark_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    student = SimpleNamespace(kinds=("canny", "sketch"), controlnet=object())
    with pytest.raises(DistilleryError, match="control/elr takes canny, sketch; say which these"):
        of_model("control/elr", student, [Given(tmp_path, None)], tmp_path)
    folder = _dark(tmp_path)
    map_files(student, [Given(folder, "canny")], [Prompt("a", "a star")], 8)
    assert "dark: no value is above 1 of 255" in capsys.readouterr().err
    at_home = read_given(["canny=~/maps:0.5", "sketch=~/maps"], None)
    assert {one.folder for one in at_home} == {Path.home() / "maps"}


def test_a_folder_is_all_that_is_needed(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """By name in its project and by its folder from elsewhere, without params, the same images."""
    usual = ("--prompt", "a red circle", "--guidance-scale", "3", "--size", "64")
    places = {"by_name": "guidance/lora", "by_folder": project / "models/guidance/lora"}
    for place, model in places.items():
        assert _generate(model, *usual, "--out", tmp_path / place) == 0
        monkeypatch.chdir(tmp_path)
    by_name, by_folder = (_pixels(tmp_path / place)["00000"].astype(int) for place in places)
    assert np.abs(by_name - by_folder).max() <= 1
    assert "2 steps, guidance scale 1, 64 px" in capsys.readouterr().out
    assert _generate("guidance/lora", *usual, "--out", tmp_path / "x") == 2
    assert "no params.yaml to know the name from; give the folder" in capsys.readouterr().err
    assert _generate(places["by_folder"], *usual, "--params", "y.yaml", "--out", "z") == 2
    assert "y.yaml: not found" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "scale", "said"),
    [
        ("guidance/lora", "5.5", ["guidance/lora: it has learned guidance 3; guidance scale 5.5 "
                                  "would apply guidance twice and is left out"]),
        ("guidance/lora", "1", []),
        ("guidance/lora", None, []),
        ("unet/elr", "5.5", []),
    ],
)  # fmt: skip
def test_guidance_that_was_learned_is_not_applied_twice(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture, model: str, scale: str, said: list
) -> None:
    asked = () if scale is None else ("--guidance-scale", scale)
    assert _generate(model, "--prompt", "a star", *asked, "--out", tmp_path / "images") == 0
    shown = capsys.readouterr()
    assert [line for line in shown.err.splitlines() if "guidance" in line and "/" in line] == said
    assert f"guidance scale {'5.5' if model == 'unet/elr' else '1'}," in shown.out


@pytest.mark.parametrize("model", ["guidance/taught", "unet/elr"])
def test_a_negative_prompt_leads_away_where_it_can(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture, model: str
) -> None:
    asked = (model, "--prompt", "a star", "--out")
    for name, options in {
        "none": (),
        "red": ("--negative", "red"),
        "a": ("--negative", "a"),
    }.items():
        assert _generate(*asked, tmp_path / name, *options) == 0
    none, red, new = (_pixels(tmp_path / name)["00000"] for name in ("none", "red", "a"))
    assert not np.array_equal(none, red)
    assert not np.array_equal(red, new)
    assert json.loads((tmp_path / "red/generate.json").read_text())["negative"] == "red"
    assert _generate(*asked, tmp_path / "red") == 2
    assert "holds images of negative red, not None" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ("guidance/lora", (), "guidance/lora draws in one evaluation and was not taught negative "
         "prompts; train it with distill_guidance.guidance.negative: true, or draw with a guided"),
        ("unet/elr", ("--guidance-scale", "1"), "unet/elr needs --guidance-scale above 1 for it"),
    ],
)  # fmt: skip
def test_a_negative_prompt_that_would_be_lost_is_refused(
    project: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    model: str,
    options: tuple,
    said: str,
) -> None:
    asked = (model, "--prompt", "a star", "--negative", "red", *options, "--out", tmp_path / "x")
    assert _generate(*asked) == 2
    assert f"--negative: {said}" in capsys.readouterr().err


def test_its_own_settings_are_said_where_there_are_no_params(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    learned = choose(str(project / "models/guidance/lora"), Path("params.yaml"))
    assert learned.settings["guidance_scale"] == 3.0
    assert learned.settings["resolution_px"] == 64
    assert learned.folders.backbone == project / "models/unet/elr"
    teacher = choose(str(project / "models/teacher"), Path("params.yaml"))
    assert (teacher.name, teacher.settings["guidance_scale"]) == ("teacher/guided", 7.5)


def test_a_model_whose_base_changed_is_refused(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    moved = tmp_path / "models/guidance/lora"
    shutil.copytree(project / "models/guidance/lora", moved)
    assert _generate(moved, "--prompt", "x", "--out", tmp_path / "x") == 2
    assert "its backbone is not at" in capsys.readouterr().err
    for name in ("teacher", "unet"):
        shutil.copytree(project / "models" / name, tmp_path / "models" / name)
    (tmp_path / "models/unet/elr/config.json").write_text("{}")
    assert _generate(moved, "--prompt", "x", "--out", tmp_path / "x") == 2
    error = capsys.readouterr().err
    assert "its backbone" in error
    assert "is another one than it was trained on" in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("unet/lost", "--prompt", "x"),
            "params have no distill_unet.variants.lost; there are elr",
        ),
        (("guidance/lost", "--prompt", "x"), "no distill_guidance.variants.lost; there are "),
        (
            ("models/unet/lost", "--prompt", "x"),
            "; there are models/guidance/lora, mo",
        ),
        (("whole/lost", "--prompt", "x"), "params have no generate.whole.lost; there are student"),
        (("lost", "--prompt", "x"), "lost: no model's folder (student.json) and no name"),
        (("unet/elr",), "give --prompt TEXT or --prompts FILE"),
        (("unet/elr", "--prompt", "x", "--prompts", "y.json"), "no prompts, or two kinds"),
        (("unet/elr", "--prompt", "x", "--device", "tpu"), "--device tpu: use cpu or cuda"),
        (("unet/elr", "--prompt", "x", "--size", "70"), "70: use a multiple of 8"),
        (("unet/elr", "--prompt", "x", "--conditions", "."), "takes no condition maps"),
        (("unet/elr", "--prompt", "x", "--guidance-scale", "inf"), "use a number, such as 7.5"),
        (("teacher/gided", "--prompt", "x"), "the teacher draws as guided, unguided"),
    ],
)
def test_what_is_missing_is_said(
    project: Path, tmp_path: Path, arguments: tuple, said: str, capsys: pytest.CaptureFixture
) -> None:
    assert _generate(*arguments, "--out", tmp_path / "out") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_student_that_is_yet_to_be_made_is_named_with_its_command(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    params = Path("params.yaml").read_text().replace("models: models", "models: trained")
    (tmp_path / "params.yaml").write_text(params)
    more = ("--params", tmp_path / "params.yaml", "--out", tmp_path / "out")
    assert _generate("unet/elr", "--prompt", "x", *more) == 2
    assert "trained/unet/elr is not there; run `snakemake --cores 8" in capsys.readouterr().err


def test_images_are_not_put_into_an_artefact(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made/manifest.json").touch()
    (tmp_path / "link").symlink_to(tmp_path / "made")
    for out in ("made", "made/images", "link/images"):
        assert _generate("unet/elr", "--prompt", "a star", "--out", tmp_path / out) == 2
        assert f"lies in {tmp_path}/made, which its stage" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "made").iterdir()] == ["manifest.json"]


def test_a_prompt_that_is_cut_and_a_size_beyond_memory_are_said(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    asked = ("unet/elr", "--prompt", "a red circle " * 500, "--out", tmp_path / "out")
    assert _generate(*asked, "--size", "64") == 0
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "longer than" in line)
    assert line.startswith("generate: 1 prompt longer than the 16 tokens")
    assert _generate(*asked[:2], "x", "--size", "80000000", "--out", tmp_path / "huge") == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("distillery: out of memory (Unable to allocate ")
    assert last.endswith("; use a smaller size or batch")


def test_a_runtime_that_is_not_to_be_had_is_said_and_draws_the_same(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["generate"]["runtime"] = "graph"
    asked = tmp_path / "graph.yaml"
    asked.write_text(yaml.safe_dump(params))
    for name, options in (("eager", ()), ("graph", ("--params", asked))):
        assert _generate("unet/elr", "--prompt", "a star", "--out", tmp_path / name, *options) == 0
        lines = [line for line in capsys.readouterr().err.splitlines() if "runtime" in line]
        assert len(lines) == (name == "graph")
    first, second = (_pixels(tmp_path / name) for name in ("eager", "graph"))
    assert all((first[name] == second[name]).all() for name in first)
