"""Teachers and ControlNets as users have them: they work, or `prepare_teacher` says why not."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from diffusers import ControlNetModel, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from distillery.core.errors import DistilleryError
from distillery.stages.prepare_teacher import prepare_teacher
from distillery.teacher.examine import require_controlnet, require_teacher
from distillery.teacher.load import load_scheduler
from one_line import run_command
from project import ROOT

SCHEDULER = "scheduler/scheduler_config.json"
UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture
def folder(tiny_teacher: Path, tmp_path: Path) -> Path:
    """A teacher without ControlNets and CLIP."""
    left_out = shutil.ignore_patterns("controlnet_*", "clip")
    return shutil.copytree(tiny_teacher, tmp_path / "source", ignore=left_out)


def edit(file: str, **changes: object) -> Callable[[Path], None]:
    """A change of a JSON file; None removes a key."""

    def change(folder: Path) -> None:
        values = json.loads((folder / file).read_text()) | changes
        kept = {key: value for key, value in values.items() if value is not None}
        (folder / file).write_text(json.dumps(kept))

    return change


def replace(file: str, **values: object) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_text(json.dumps(values))


def rename_tensors(file: str, rename: Callable[[str], str | None]) -> Callable[[Path], None]:
    """A change of the names in a file of weights; None leaves a tensor out."""

    def change(folder: Path) -> None:
        state = load_file(folder / file)
        renamed = {new: value for name, value in state.items() if (new := rename(name))}
        save_file(renamed, folder / file, metadata={"format": "pt"})

    return change


def move(suffix: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for file in list(folder.glob("*/*.safetensors")):
            file.rename(file.with_name(file.name.replace(".safetensors", suffix)))

    return change


def take_u_net(**changes: object) -> Callable[[Path], None]:
    """A U-Net of another config, with weights that fit it."""

    def change(folder: Path) -> None:
        config = UNet2DConditionModel.load_config(folder / "unet")
        UNet2DConditionModel.from_config({**config, **changes}).save_pretrained(folder / "unet")

    return change


def rewrite(file: str, change_bytes: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_bytes(change_bytes((folder / file).read_bytes()))


def edit_tensor(file: str, name: str, change_tensor: Callable) -> Callable[[Path], None]:
    """A change of the tensors whose names end so."""

    def change(folder: Path) -> None:
        state = load_file(folder / file)
        state = {n: change_tensor(t).contiguous() if n.endswith(name) else t
                 for n, t in state.items()}  # fmt: skip
        save_file(state, folder / file, metadata={"format": "pt"})

    return change


def lose_words(folder: Path) -> None:
    for name in ("vocab.json", "merges.txt", "tokenizer.json"):
        (folder / "tokenizer" / name).unlink(missing_ok=True)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n"
REFUSED = {
    "names with a prefix": (
        rename_tensors(TEXT, lambda name: f"module.{name}"), "text_encoder: .* tensors are missing"
    ),
    "a layer missing": (
        rename_tensors(TEXT, lambda n: None if ".layers.1." in n else n), "missing: .*layers.1"
    ),
    "names of a single file": (
        rename_tensors(UNET.replace("unet", "vae"), lambda name: f"first_stage.{name}"),
        "vae: .* tensors are missing",
    ),
    "a tensor of no layer": (
        rename_tensors(UNET, lambda name: name.replace("conv_in", "x")),
        "unet: 2 tensors are missing: conv_in",
    ),
    "flow matching": (
        replace(SCHEDULER, _class_name="FlowMatchEulerDiscreteScheduler", shift=3.0),
        "scheduler: FlowMatchEulerDiscreteScheduler is not supported",
    ),
    "EDM": (
        replace(SCHEDULER, _class_name="EDMEulerScheduler", sigma_data=0.5,
                prediction_type="epsilon"), "EDMEulerScheduler is not supported"
    ),
    "flow sigmas": (edit(SCHEDULER, use_flow_sigmas=True), "is not supported"),
    "consistency": (
        replace(SCHEDULER, _class_name="CMStochasticIterativeScheduler", sigma_max=80.0),
        "CMStochasticIterativeScheduler without beta_schedule",
    ),
    "unclip": (
        take_u_net(class_embed_type="projection", projection_class_embeddings_input_dim=64),
        "unet: class_embed_type is projection",
    ),
    "told its guidance": (take_u_net(time_cond_proj_dim=8), "time_cond_proj_dim is 8"),
    "classes": (take_u_net(num_class_embeds=10), "num_class_embeds is 10"),
    "SDXL": (
        edit("model_index.json", _class_name="StableDiffusionXLPipeline"),
        "a StableDiffusionXLPipeline; only Stable Diffusion 1.x",
    ),
    "a transformer": (
        edit("model_index.json", _class_name="FluxPipeline", transformer=["diffusers", "X"]),
        "a FluxPipeline with the component transformer",
    ),
    "another text encoder": (
        edit("text_encoder/config.json", architectures=["T5EncoderModel"], model_type="t5"),
        "text_encoder: T5EncoderModel, not CLIPTextModel",
    ),
    "another autoencoder": (
        edit("vae/config.json", _class_name="AutoencoderTiny"), "vae: AutoencoderTiny, not"
    ),
    "half precision only": (
        move(".fp16.safetensors"),
        r'model.fp16.safetensors: the only weights.*with variant="fp16" and save it again',
    ),
    "half precision in several files": (
        move(".fp16-00001-of-00001.safetensors"), 'with variant="fp16" and save it again'
    ),
    "few steps": (edit(SCHEDULER, _class_name="LCMScheduler"), "distilled to few steps already"),
    "another schedule": (edit(SCHEDULER, beta_schedule="cosine"), "no schedule of betas that"),
    "betas of 2": (edit(SCHEDULER, beta_end=2.0), "betas outside of 0 to 1"),
    "fewer betas": (edit(SCHEDULER, trained_betas=[0.1] * 9), "not one for each timestep"),
    "a schedule of its own": (
        edit(SCHEDULER, _class_name="CogVideoXDDIMScheduler", snr_shift_scale=3.0),
        "CogVideoXDDIMScheduler has another noise schedule",
    ),
    "a sampler without these betas": (
        edit(SCHEDULER, beta_schedule="sigmoid"), "DDIMScheduler does not take its"
    ),
    "a spacing that is none": (edit(SCHEDULER, timestep_spacing="x"), "does not take its"),
    "a billion timesteps": (
        edit(SCHEDULER, num_train_timesteps=10**9), "num_train_timesteps is 1000000000, not"
    ),
    "one timestep": (edit(SCHEDULER, num_train_timesteps=1), "num_train_timesteps is 1, not"),
    "latents times zero": (edit("vae/config.json", scaling_factor=0), "scaling_factor 0"),
    "latents times text": (edit("vae/config.json", scaling_factor="0.18"), "scaling_factor 0.18"),
    "inpainting": (take_u_net(in_channels=33), "33 channels and gives 16, .* for inpainting"),
    "brackets": (rewrite("unet/config.json", lambda _: b"[" * 10**5), "config.json: not valid"),
    "digits": (
        rewrite("vae/config.json", lambda _: b'{"a":' + b"9" * 5000 + b"}"), "not valid JSON"
    ),
    "boxes": (edit("unet/config.json", attention_type="gated"), "attention_type is gated"),
    "RGBA": (edit("vae/config.json", in_channels=4), "vae: takes 4 channels and gives 3"),
    "a list for a config": (rewrite("vae/config.json", lambda _: b"[]"), "no mapping; get it"),
    "a null class": (edit("model_index.json", transformer={"a": 1}), "the component transformer"),
    "a Git LFS pointer": (rewrite(UNET, lambda _: LFS), "unet.*Git LFS pointer.*`git lfs pull`"),
    "a web page": (rewrite(UNET, lambda _: b"<!DOCTYPE html>"), "unet.*: a web page, not a safe"),
    "nothing": (rewrite(UNET, lambda _: b""), "unet.*safetensors: empty, not a safetensors"),
    "half a file": (rewrite(UNET, lambda data: data[: len(data) // 2]), "its header says"),
    "NaN": (edit_tensor(UNET, "conv_in.bias", lambda t: t * torch.nan), "conv_in.bias holds NaN"),
    "another shape": (
        edit_tensor(TEXT, "layers.1.mlp.fc1.weight", lambda t: t.T), "text_encoder: cannot load"
    ),
    "a transposed matrix": (
        edit_tensor(UNET, "time_embedding.linear_1.weight", lambda t: t.T), "unet: cannot load"
    ),
    "no words": (lose_words, "tokenizer: (knows no words|cannot load)"),
    "another tokenizer": (edit("text_encoder/config.json", vocab_size=7), "text_encoder"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_distilled_is_refused_in_one_line(
    folder: Path, change: Callable[[Path], None], message: str
) -> None:
    change(folder)
    with pytest.raises(DistilleryError, match=message) as raised:
        require_teacher(folder)
    assert "\n" not in str(raised.value)
    assert str(folder) in str(raised.value)


def test_a_schedule_that_was_refused_is_not_loaded_either(folder: Path) -> None:
    REFUSED["flow matching"][0](folder)
    with pytest.raises(DistilleryError, match="FlowMatchEulerDiscreteScheduler"):
        load_scheduler(folder)


def published(folder: Path) -> None:
    """A folder as Stable Diffusion 1.5 is published."""
    checker = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    parts = {"feature_extractor": ["transformers", "CLIPImageProcessor"], "safety_checker": checker}
    edit("model_index.json", requires_safety_checker=None, **parts)(folder)
    for name in parts:
        (folder / name).mkdir()
        (folder / name / "config.json").write_text("{}")


def old_names(folder: Path) -> None:
    """Names as Stable Diffusion 1.5's published files have them, and a buffer that is no weight."""
    olds = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(name: str) -> str:
        for new, old in olds.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        return name

    rename_tensors(UNET.replace("unet", "vae"), rename)(folder)
    state = load_file(folder / TEXT)
    state["text_model.embeddings.position_ids"] = torch.arange(16)[None]
    save_file(state, folder / TEXT, metadata={"format": "pt"})


ACCEPTED = {
    "with names of older versions": old_names,
    "with more parts": published,
    "without an index": lambda folder: (folder / "model_index.json").unlink(),
    "with another pipeline": edit(
        "model_index.json",
        _class_name="StableDiffusionImg2ImgPipeline",
        image_encoder=["transformers", "CLIPVisionModelWithProjection"],
    ),
    "without the tokenizer's length": edit(
        "tokenizer/tokenizer_config.json", model_max_length=None
    ),
    "with a length that is too large": edit(
        "tokenizer/tokenizer_config.json", model_max_length=10**30
    ),
}


@pytest.mark.parametrize("change", ACCEPTED.values(), ids=ACCEPTED)
def test_what_was_prepared_draws(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, change: Callable[[Path], None]
) -> None:
    change(folder)
    assert prepare(folder, tmp_path, capsys) == ""
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "teacher")
    assert pipeline.safety_checker is None
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline("a red kite " * 20, num_inference_steps=1, output_type="np").images
    assert drawn.shape == (1, 64, 64, 3)


def prepare(source: Path, root: Path, capsys: pytest.CaptureFixture, **controlnets: Path) -> str:
    """Run the command; what it says where it ends with an error."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["prepare_teacher"] |= {
        "source": str(source), "controlnets": {k: str(p) for k, p in controlnets.items()},
    }  # fmt: skip
    values["finetune_control"]["losses"]["lambda_kd"] = 0.0
    values["paths"]["work"] = str(root / "work")
    (root / "params.yaml").write_text(yaml.safe_dump(values))
    arguments = ["--params", root / "params.yaml", "--scenes_teacher", source]
    return run_command(prepare_teacher, [*arguments, "--teacher", root / "teacher"], capsys)


OTHER = {
    "text": ({"cross_attention_dim": 64}, "cross_attention_dim 64, the teacher .* needs 32"),
    "width": ({"block_out_channels": (64, 128)}, r"block_out_channels \[64, 128\].* \[32, 64\]"),
    "layers": ({"layers_per_block": 3}, "layers_per_block 3, the teacher .* needs 1"),
    "grey": ({"conditioning_channels": 1}, "conditioning_channels 1, the teacher .* needs 3"),
    "blocks": ({"down_block_types": ("CrossAttnDownBlock2D",) * 2}, "down_block_types"),
    "latent": ({"in_channels": 4}, "in_channels 4, the teacher .* needs 16"),
    "pooled": ({"global_pool_conditions": True}, "global_pool_conditions True.*needs False"),
    "scale": ({"conditioning_embedding_out_channels": (8, 8)}, "halvings of the map.* needs 3"),
}


@pytest.mark.parametrize(("changes", "message"), OTHER.values(), ids=OTHER)
def test_a_controlnet_of_another_model_names_both_numbers(
    tiny_teacher: Path, tmp_path: Path, changes: dict, message: str
) -> None:
    config = ControlNetModel.load_config(tiny_teacher / "controlnet_canny")
    ControlNetModel.from_config({**config, **changes}).save_pretrained(tmp_path / "own")
    with pytest.raises(
        DistilleryError, match=f"{tmp_path}/own: this ControlNet .canny. has {message}"
    ):
        require_controlnet("canny", tmp_path / "own", tiny_teacher)


def test_a_controlnet_in_several_files_works(
    folder: Path, tiny_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model = ControlNetModel.from_pretrained(tiny_teacher / "controlnet_canny")
    model.save_pretrained(tmp_path / "own", max_shard_size="200KB")
    assert len(list((tmp_path / "own").glob("*.safetensors"))) > 1
    assert prepare(folder, tmp_path, capsys, canny=tmp_path / "own") == ""
    prepared = ControlNetModel.from_pretrained(tmp_path / "teacher/controlnet_canny")
    for a, b in zip(model.parameters(), prepared.parameters(), strict=True):
        assert torch.equal(a, b)
    next((tmp_path / "own").glob("*.safetensors")).unlink()
    assert "own: cannot load: " in prepare(folder, tmp_path, capsys, canny=tmp_path / "own")


def test_a_controlnet_in_half_precision_only_is_refused(
    folder: Path, tiny_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model = ControlNetModel.from_pretrained(tiny_teacher / "controlnet_canny")
    model.save_pretrained(tmp_path / "own", variant="fp16")
    error = prepare(folder, tmp_path, capsys, canny=tmp_path / "own")
    assert "diffusion_pytorch_model.fp16.safetensors: the only weights" in error
    os.mkfifo(tmp_path / "own/diffusion_pytorch_model.safetensors")
    assert "the only weights there" in prepare(folder, tmp_path, capsys, canny=tmp_path / "own")
    assert not (tmp_path / "teacher").exists()


def test_a_single_file_and_a_cache_are_called_what_they_are(
    folder: Path, tiny_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    weights = tiny_teacher / "controlnet_canny/diffusion_pytorch_model.safetensors"
    error = prepare(folder, tmp_path, capsys, canny=weights)
    assert f"{weights}: a single file" in error
    assert "ControlNetModel.from_single_file" in error
    (tmp_path / "models--a--b/snapshots").mkdir(parents=True)
    (tmp_path / "models--a--b/snapshots/rev1").symlink_to(folder)
    cache = tmp_path / "models--a--b"
    error = prepare(cache, tmp_path, capsys)
    assert f"a download cache; set prepare_teacher.source to {cache}/snapshots/rev1" in error
    assert prepare(cache / "snapshots/rev1", tmp_path, capsys) == ""
