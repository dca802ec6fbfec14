"""Key names of the original code, against names that published checkpoints are known to have.

Of Stable Diffusion 1.5 (v1-5-pruned-emaonly), 2.1 (v2-1_768-ema-pruned) and ControlNet 1.0
(control_sd15_canny), as the public converters to diffusers read them.
"""

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel
from transformers import CLIPTextModel

from distillery.core.errors import DistilleryError
from distillery.export.controlnet_names import controlnet_names, plain_controlnet
from distillery.export.encoder_names import unet_names
from distillery.export.text_names import is_open_clip, original_text_encoder
from distillery.export.vae_names import original_vae
from distillery.models.architectures import build_meta
from distillery.models.lora.guidance_embedding import add_scale_embedding
from distillery.models.student_controlnet import PRESETS, StudentControlNet
from distillery.models.student_controlnet.presets import meta_controlnet
from tiny_models import tiny_unet

UNET = {
    "conv_in.weight": "input_blocks.0.0.weight",
    "time_embedding.linear_1.bias": "time_embed.0.bias",
    "time_embedding.linear_2.weight": "time_embed.2.weight",
    "down_blocks.0.resnets.0.norm1.weight": "input_blocks.1.0.in_layers.0.weight",
    "down_blocks.0.resnets.0.conv1.weight": "input_blocks.1.0.in_layers.2.weight",
    "down_blocks.0.resnets.0.time_emb_proj.weight": "input_blocks.1.0.emb_layers.1.weight",
    "down_blocks.0.resnets.0.norm2.weight": "input_blocks.1.0.out_layers.0.weight",
    "down_blocks.0.resnets.0.conv2.weight": "input_blocks.1.0.out_layers.3.weight",
    "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k.weight":
        "input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight",
    "down_blocks.0.attentions.0.proj_in.weight": "input_blocks.1.1.proj_in.weight",
    "down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj.weight":
        "input_blocks.1.1.transformer_blocks.0.ff.net.0.proj.weight",
    "down_blocks.0.downsamplers.0.conv.weight": "input_blocks.3.0.op.weight",
    "down_blocks.1.resnets.0.conv_shortcut.weight": "input_blocks.4.0.skip_connection.weight",
    "down_blocks.2.downsamplers.0.conv.bias": "input_blocks.9.0.op.bias",
    "down_blocks.3.resnets.1.conv2.bias": "input_blocks.11.0.out_layers.3.bias",
    "mid_block.resnets.0.conv1.weight": "middle_block.0.in_layers.2.weight",
    "mid_block.attentions.0.transformer_blocks.0.norm1.bias":
        "middle_block.1.transformer_blocks.0.norm1.bias",
    "mid_block.resnets.1.conv1.weight": "middle_block.2.in_layers.2.weight",
    "up_blocks.0.resnets.2.conv1.weight": "output_blocks.2.0.in_layers.2.weight",
    "up_blocks.0.upsamplers.0.conv.weight": "output_blocks.2.1.conv.weight",
    "up_blocks.1.attentions.0.norm.weight": "output_blocks.3.1.norm.weight",
    "up_blocks.1.upsamplers.0.conv.weight": "output_blocks.5.2.conv.weight",
    "up_blocks.2.upsamplers.0.conv.weight": "output_blocks.8.2.conv.weight",
    "up_blocks.3.attentions.2.proj_out.weight": "output_blocks.11.1.proj_out.weight",
    "conv_norm_out.weight": "out.0.weight",
    "conv_out.bias": "out.2.bias",
}  # fmt: skip
VAE = {
    "encoder.conv_norm_out.weight": "encoder.norm_out.weight",
    "encoder.down_blocks.1.resnets.0.conv_shortcut.weight":
        "encoder.down.1.block.0.nin_shortcut.weight",
    "encoder.down_blocks.0.downsamplers.0.conv.weight": "encoder.down.0.downsample.conv.weight",
    "encoder.mid_block.resnets.1.norm1.weight": "encoder.mid.block_2.norm1.weight",
    "decoder.mid_block.attentions.0.group_norm.bias": "decoder.mid.attn_1.norm.bias",
    "decoder.mid_block.attentions.0.to_q.weight": "decoder.mid.attn_1.q.weight",
    "decoder.mid_block.attentions.0.to_out.0.weight": "decoder.mid.attn_1.proj_out.weight",
    "decoder.up_blocks.0.resnets.2.conv2.weight": "decoder.up.3.block.2.conv2.weight",
    "decoder.up_blocks.3.resnets.0.conv1.weight": "decoder.up.0.block.0.conv1.weight",
    "decoder.up_blocks.0.upsamplers.0.conv.bias": "decoder.up.3.upsample.conv.bias",
    "quant_conv.weight": "quant_conv.weight",
    "post_quant_conv.bias": "post_quant_conv.bias",
}  # fmt: skip
CONTROLNET = {
    "conv_in.weight": "input_blocks.0.0.weight",
    "controlnet_cond_embedding.conv_in.weight": "input_hint_block.0.weight",
    "controlnet_cond_embedding.blocks.0.weight": "input_hint_block.2.weight",
    "controlnet_cond_embedding.blocks.5.bias": "input_hint_block.12.bias",
    "controlnet_cond_embedding.conv_out.weight": "input_hint_block.14.weight",
    "controlnet_down_blocks.0.weight": "zero_convs.0.0.weight",
    "controlnet_down_blocks.11.bias": "zero_convs.11.0.bias",
    "controlnet_mid_block.weight": "middle_block_out.0.weight",
    "down_blocks.3.resnets.1.conv1.weight": "input_blocks.11.0.in_layers.2.weight",
    "mid_block.attentions.0.proj_in.weight": "middle_block.1.proj_in.weight",
}


@pytest.mark.parametrize("architecture", ["sd15", "sd21"])
def test_the_unet_has_its_published_names(architecture: str) -> None:
    state = build_meta(architecture)["unet"].state_dict()
    names = unet_names(state)
    assert len(names) == len(set(names.values())) == len(state) == 686
    assert {key: names[key] for key in UNET} == UNET


def test_the_vae_has_its_published_names() -> None:
    vae: AutoencoderKL = build_meta("sd15")["vae"]
    state = vae.state_dict()
    original = original_vae(state)
    assert len(original) == len(state) == 248
    for key, name in VAE.items():
        assert original[name].numel() == state[key].numel()
    assert original["decoder.mid.attn_1.q.weight"].shape == (512, 512, 1, 1)
    assert original["decoder.mid.attn_1.proj_out.bias"].shape == (512,)


@pytest.mark.parametrize(("architecture", "number"), [("sd15", 196), ("sd21", 280)])
def test_text_encoders_have_the_names_of_their_version(architecture: str, number: int) -> None:
    encoder: CLIPTextModel = build_meta(architecture)["text_encoder"]
    open_clip = is_open_clip(encoder.config.to_dict())
    names = original_text_encoder(encoder.state_dict(), open_clip)
    assert open_clip == (architecture == "sd21")
    assert len(names) == number
    if open_clip:
        block = "cond_stage_model.model.transformer.resblocks.22"
        assert names[f"{block}.attn.in_proj_weight"].shape == (3072, 1024)
        for part in ("attn.in_proj_bias", "attn.out_proj.weight", "ln_1.bias", "mlp.c_fc.weight"):
            assert f"{block}.{part}" in names
        for part in ("positional_embedding", "token_embedding.weight", "ln_final.weight"):
            assert f"cond_stage_model.model.{part}" in names
    else:
        start = "cond_stage_model.transformer.text_model."
        for part in (
            "embeddings.position_embedding.weight",
            "encoder.layers.11.self_attn.q_proj.weight",
            "final_layer_norm.bias",
        ):
            assert f"{start}{part}" in names


def test_query_key_and_value_are_one_matrix_in_that_order() -> None:
    start = "text_model.encoder.layers.0.self_attn"
    state = {f"{start}.{p}_proj.bias": torch.full((2,), float(i)) for i, p in enumerate("kqv")}
    (bias,) = original_text_encoder(state, open_clip=True).values()
    assert bias.tolist() == [1, 1, 0, 0, 2, 2]


def test_controlnets_have_their_published_names() -> None:
    state = meta_controlnet("sd15").state_dict()
    names = controlnet_names(state)
    assert len(names) == len(set(names.values())) == len(state) == 340
    assert {key: names[key] for key in CONTROLNET} == CONTROLNET


def test_layers_that_the_original_lacks_are_named() -> None:
    told = add_scale_embedding(tiny_unet())
    with pytest.raises(DistilleryError, match=r"time_embedding\.cond_proj.* no such layer; export"):
        unet_names(told.state_dict())
    without = tiny_unet(mid_block_type=None)
    with pytest.raises(DistilleryError, match="middle block has no transformer"):
        unet_names(without.state_dict())
    with pytest.raises(DistilleryError, match=r"vae\.decoder\.more: the original"):
        original_vae({"decoder.more.weight": torch.zeros(1)})
    with pytest.raises(DistilleryError, match="not a layer of CLIP"):
        original_text_encoder({"text_projection.weight": torch.zeros(1)}, open_clip=True)


@pytest.mark.parametrize(
    ("preset", "reason"),
    [
        ("reduced_channel", "is narrower than its U-Net"),
        ({"layers_per_block": 1}, "has fewer layers than its U-Net"),
        ({"modulation": "film"}, "has film modulations"),
        ({"output_map": {"level0.layer1": "level0.layer0"}}, "fed from other places"),
    ],
)
def test_what_keeps_a_controlnet_from_being_plain_is_said(preset, reason: str) -> None:
    teacher: ControlNetModel = meta_controlnet("sd15")
    settings = PRESETS[preset] if isinstance(preset, str) else preset
    if own := settings.get("output_map"):
        same = {name: name for name in StudentControlNet.empty(teacher, {}).config.output_map}
        settings = {**settings, "output_map": same | own}
    with pytest.raises(DistilleryError, match=f"{reason}.*export --to hub or --to comfyui-node"):
        plain_controlnet(StudentControlNet.empty(teacher, settings))
