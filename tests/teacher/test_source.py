"""What can't be had, or is not what was expected, is an error that says what to do."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from distillery.core.errors import DamagedError, DistilleryError
from distillery.teacher.copy import copy_teacher, replace_controlnet
from distillery.teacher.fingerprint import fingerprint
from distillery.teacher.source import (
    HubSource,
    find_controlnet,
    find_teacher,
)

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tiny_teacher: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_teacher, tmp_path / "source")


def test_a_local_folder_is_taken_with_its_components_only(folder: Path, tmp_path: Path) -> None:
    (folder / "unet" / "pickle.bin").write_bytes(b"x")
    (folder / "unet" / "run_me.py").write_text("x")
    (folder / "vae" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"x")
    (folder / "somewhere").mkdir()
    assert find_teacher(str(folder), mirrors=[], revision=None) == folder
    copy_teacher(folder, tmp_path / "teacher", {})
    kept = {p.relative_to(tmp_path / "teacher").parts[0] for p in (tmp_path / "teacher").rglob("*")}
    assert kept == {
        "model_index.json", "tokenizer", "text_encoder", "vae", "unet", "scheduler", "clip",
        "controlnet_canny", "controlnet_sketch", "controlnet_segmentation",
    }  # fmt: skip
    suffixes = {p.suffix for p in (tmp_path / "teacher").rglob("*") if p.is_file()}
    assert suffixes <= {".json", ".txt", ".safetensors"}
    assert not (tmp_path / "teacher/vae/diffusion_pytorch_model.fp16.safetensors").exists()


def test_expected_hashes_are_checked(folder: Path, tmp_path: Path) -> None:
    right = hashlib.sha256((folder / UNET).read_bytes()).hexdigest()
    copy_teacher(folder, tmp_path / "right", {UNET: right.upper()})
    with pytest.raises(DamagedError, match=rf"{UNET}: sha256 is {right}, expected 00ff"):
        copy_teacher(folder, tmp_path / "wrong", {UNET: "00ff"})
    with pytest.raises(DistilleryError, match="no_such"):
        copy_teacher(folder, tmp_path / "lacking", {"unet/no_such.safetensors": right})


def test_a_missing_component_is_named(folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder / "vae")
    with pytest.raises(DistilleryError, match="component vae is missing"):
        copy_teacher(folder, tmp_path / "teacher", {})


def test_pickled_weights_are_named_with_the_way_to_convert_them(
    folder: Path, tmp_path: Path
) -> None:
    (folder / UNET).rename(folder / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(DistilleryError, match=r"model.bin: pickled weights.*safe_serialization"):
        copy_teacher(folder, tmp_path / "teacher", {})


def test_a_source_that_is_nothing_is_refused() -> None:
    with pytest.raises(DistilleryError, match="is no folder here and no hub id"):
        find_teacher("no/such/folder/at all", mirrors=[], revision=None)


def test_mirrors_have_their_own_endpoint_and_revision() -> None:
    mirror = HubSource.parse("https://mirror.example/org/name@v1.0", "abc")
    assert (mirror.endpoint, mirror.repo, mirror.revision) == (
        "https://mirror.example", "org/name", "v1.0",
    )  # fmt: skip
    assert HubSource.parse("org/name", "abc").revision == "abc"


def test_all_places_are_tried_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def unreachable(repo: str, **options: object) -> str:
        asked.append((repo, options["endpoint"], options["revision"]))
        raise OSError(f"{repo}/unet/config.json: no route to host\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(DistilleryError) as caught:
        find_teacher("org/sd", mirrors=["https://mirror.example/org2/sd@x"], revision="r")
    assert asked == [("org/sd", None, "r"), ("org2/sd", "https://mirror.example", "x")]
    message = str(caught.value)
    assert "\n" not in message
    for part in ("org/sd@r", "org2/sd@x", "unet/config.json", "local diffusers folder"):
        assert part in message


def test_the_first_place_that_has_it_is_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(repo: str, **options: object) -> str:
        assert "unet/*.safetensors" in options["allow_patterns"]
        assert not any(p.endswith((".bin", ".ckpt", ".py")) for p in options["allow_patterns"])
        if repo == "gone/sd":
            raise OSError("404")
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert find_teacher("gone/sd", mirrors=["org/sd"], revision=None) == folder


def test_the_fingerprint_says_what_the_teacher_is(folder: Path) -> None:
    found = fingerprint(folder)
    assert found["prediction_type"] == "epsilon"
    assert found["weights"][UNET] == hashlib.sha256((folder / UNET).read_bytes()).hexdigest()
    assert found["components"]["unet"]["block_out_channels"] == [32, 64]
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    assert found["components"]["unet"]["num_parameters"] == unet.num_parameters()


@pytest.mark.parametrize(
    ("file", "key", "value", "message"),
    [
        ("scheduler/scheduler_config.json", "prediction_type", "sample", "not supported"),
        ("unet/config.json", "in_channels", 9, "takes 9 channels"),
        ("unet/config.json", "cross_attention_dim", 99, "the U-Net takes 99"),
    ],
)
def test_a_teacher_that_cannot_be_distilled_is_refused(
    folder: Path, file: str, key: str, value: object, message: str
) -> None:
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(config | {key: value}))
    with pytest.raises(DistilleryError, match=message):
        fingerprint(folder)


def test_a_cut_weight_file_is_named(folder: Path) -> None:
    (folder / UNET).write_bytes(b"\x00\x01")
    with pytest.raises(DamagedError, match=UNET):
        fingerprint(folder)


def test_a_controlnet_of_ones_own_joins_the_teacher(folder: Path, tmp_path: Path) -> None:
    teacher, own = tmp_path / "teacher", tmp_path / "own"
    copy_teacher(folder, teacher, {})
    shutil.copytree(folder / "unet", own)
    (own / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"x")
    (teacher / "controlnet_canny" / "old.safetensors").write_bytes(b"x")
    replace_controlnet("canny", find_controlnet("canny", str(own)), teacher)
    kept = {path.name for path in (teacher / "controlnet_canny").iterdir()}
    assert kept == {"config.json", "diffusion_pytorch_model.safetensors"}


def test_a_controlnet_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DistilleryError, match=r"\*.safetensors: not found.*controlnets.canny to"):
        find_controlnet("canny", str(tmp_path))
    with pytest.raises(DistilleryError, match=r"controlnets.sketch: 'no such' is no folder"):
        find_controlnet("sketch", "no such")
