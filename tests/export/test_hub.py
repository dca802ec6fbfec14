"""Hub folders: what loads where this package is not, what the card says, what is uploaded."""

import json
import subprocess
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionControlNetPipeline, StableDiffusionPipeline
from huggingface_hub import ModelCard, constants
from safetensors.torch import load_file

from distillery.cli import main
from distillery.core.errors import DistilleryError
from distillery.export import upload
from distillery.models.load import load_controlnet, load_unet
from export.fake_hub import fake_hub
from export.test_single_file import draw

FOLDERS = {
    "elr": ("models/unet/elr",),
    "lean": ("models/unet/lean",),
    "distilled": ("models/controlnet/distilled",),
    "loha": ("models/controlnet/loha",),
    "original": ("models/controlnet/original",),
    "lora": ("models/guidance/lora_distill",),
    "told": ("models/guidance/told",),
    "whole": ("models/guidance/lora_distill_elr", "--controlnet", "models/controlnet/loha"),
}
# The code of each card, where `import distillery` fails; images are kept.
ELSEWHERE = """
import re, sys, torch
sys.modules["distillery"] = None
from diffusers.utils import logging
logging.disable_progress_bar()
from safetensors.torch import save_file
images = {}
for folder in sys.argv[1:]:
    page = open(f"{folder}/README.md").read()
    code = re.search(r"```python\\n(.*?)```", page, re.DOTALL)[1].splitlines()
    *code, call = [line.replace("REPO", folder) for line in code]
    names = {}
    exec("\\n".join(code), names)
    pipeline = names["pipeline"]
    pipeline.set_progress_bar_config(disable=True)
    maps = {"image": torch.linspace(0, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)}
    images[folder] = torch.from_numpy(pipeline(
        "a red circle", num_inference_steps=2, output_type="np", height=64, width=64,
        generator=torch.Generator().manual_seed(0), **(maps if "image=" in call else {}),
    ).images[0]).contiguous()
save_file(images, "images.safetensors")
"""


@pytest.fixture(scope="module")
def folders(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of model as a hub folder."""
    root = tmp_path_factory.mktemp("hub")
    base = ["--base-model", str(project / "models/teacher")]
    for name, (model, *more) in FOLDERS.items():
        more = [str(project / word) if word.startswith("models/") else word for word in more]
        _run("export", str(project / model), "--to", "hub", str(root / name), *base, *more)
    return root


def _run(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code in (0, None)


@pytest.fixture(scope="module")
def images(folders: Path, python: Path) -> dict[str, torch.Tensor]:
    """What the cards' code draws in a process that has no `distillery`."""
    command = [python / "python", "-c", ELSEWHERE, *FOLDERS]
    done = subprocess.run(command, cwd=folders, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(folders / "images.safetensors")


def test_unets_draw_the_same_without_this_package(project: Path, images) -> None:
    for name in ("elr", "lean"):
        unet = load_unet(project / "models/unet" / name)
        pipeline = StableDiffusionPipeline.from_pretrained(project / "models/teacher", unet=unet)
        assert (draw(pipeline) - images[name]).abs().max() <= 1e-4


@pytest.mark.parametrize("name", ["distilled", "loha", "original"])
def test_controlnets_draw_the_same_without_this_package(project: Path, images, name: str) -> None:
    controlnet = load_controlnet(project / "models/controlnet" / name, "cpu", torch.float32)
    pipeline = StableDiffusionControlNetPipeline.from_pretrained(
        project / "models/teacher", controlnet=controlnet
    )
    pipeline.set_progress_bar_config(disable=True)
    maps = torch.linspace(0, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    image = pipeline(
        "a red circle", maps, num_inference_steps=2, output_type="np", height=64, width=64,
        generator=torch.Generator().manual_seed(0),
    ).images[0]  # fmt: skip
    assert (torch.from_numpy(image) - images[name]).abs().max() <= 1e-4


def test_parts_differ_as_their_models_do(images) -> None:
    assert set(images) == set(FOLDERS)
    for name in ("lora", "told", "whole"):
        assert torch.isfinite(images[name]).all()
    assert (images["elr"] - images["lean"]).abs().max() > 1e-3


def test_the_folder_brings_code_only_where_it_is_needed(folders: Path) -> None:
    files = {
        name: {p.relative_to(folders / name).as_posix() for p in (folders / name).rglob("*.*")}
        for name in FOLDERS
    }
    weights = "diffusion_pytorch_model.distillery.safetensors"
    assert files["elr"] == {"README.md", "config.json", "low_rank_unet.py", weights}
    assert files["loha"] == {"README.md", "config.json", "student_controlnet.py", weights}
    plain = {"README.md", "config.json", "diffusion_pytorch_model.safetensors"}
    assert files["original"] == files["told"] == plain
    assert files["lora"] == {"README.md", "pytorch_lora_weights.safetensors"}
    assert {"unet/low_rank_unet.py", "controlnet/student_controlnet.py"} < files["whole"]
    auto_map = json.loads((folders / "elr/config.json").read_text())["auto_map"]
    assert auto_map == {"AutoModel": "low_rank_unet.LowRankUNet2DConditionModel"}
    assert "distillery" not in (folders / "elr/low_rank_unet.py").read_text().replace(
        "diffusion-distillery", ""
    ).replace('"distillery"', "")


def test_the_card_tells_the_hub_what_it_is(project: Path, tmp_path: Path) -> None:
    metrics = tmp_path / "elr.json"
    metrics.write_text(json.dumps({"metrics": {"fid": {"value": 3.25}, "kid": {"value": 0.5}}}))
    arguments = ["--dataset", "me/scenes", "--metrics", str(metrics), "--license", "openrail"]
    model = str(project / "models/unet/elr")
    _run("export", model, "--to", "hub", str(tmp_path / "out"), *arguments)
    card = ModelCard.load(tmp_path / "out/README.md")
    said = card.data.to_dict()
    assert (said["base_model"], said["base_model_relation"]) == ("someone/tiny", "finetune")
    assert (said["pipeline_tag"], said["library_name"]) == ("text-to-image", "diffusers")
    assert (said["license"], said["datasets"]) == ("openrail", ["me/scenes"])
    (results,) = said["model-index"]
    values = {m["type"]: m["value"] for r in results["results"] for m in r["metrics"]}
    assert values == {"fid": 3.25, "kid": 0.5}
    assert "## Training\n\n- steps: 3" in card.text
    assert "AutoModel.from_pretrained(" in card.text
    assert "do not look for" in card.text


def test_the_results_are_those_of_the_models_own_project(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name, values = "unet/elr", {"metrics": {"fid": {"value": 3.25}}}
    elsewhere, own = tmp_path / f"metrics/{name}.json", project / f"metrics/{name}.json"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_text(json.dumps(values))
    _run("export", str(project / f"models/{name}"), "--to", "hub", str(tmp_path / "without"))
    assert "model-index" not in ModelCard.load(tmp_path / "without/README.md").data.to_dict()
    own.parent.mkdir(parents=True)
    elsewhere.rename(own)
    _run("export", str(project / f"models/{name}"), "--to", "hub", str(tmp_path / "with"))
    own.unlink()
    assert "model-index" in ModelCard.load(tmp_path / "with/README.md").data.to_dict()


@pytest.mark.parametrize("name", ["lora", "loha"])
def test_loras_and_controlnets_are_adapters(folders: Path, name: str) -> None:
    said = ModelCard.load(folders / name / "README.md").data.to_dict()
    assert said["base_model_relation"] == "adapter"
    assert "model-index" not in said


def test_push_uploads_the_folder(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    out = tmp_path / "out"
    with fake_hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        model = str(project / "models/unet/elr")
        _run("export", model, "--to", "hub", str(out), "--push", "me/x", "--private")
    assert server.repository["name"] == "x"
    assert server.repository.get("visibility", server.repository.get("private")) in (
        "private",
        True,
    )
    assert server.files == {path.name: path.read_bytes() for path in out.iterdir()}
    # Libraries' threads may ask the same hub for other things.
    ours = {p: t for p, t in server.tokens.items() if "/me/x" in p or p.startswith("/api/repos")}
    assert ours == dict.fromkeys(ours, "Bearer hf_of_a_test")
    assert any("/commit/" in path for path in ours)


def test_a_hub_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    (tmp_path / "README.md").write_text("a")
    with pytest.raises(DistilleryError, match=r"--push me/x: .*complete, upload it later by `hf"):
        upload.push(tmp_path, "me/x")
