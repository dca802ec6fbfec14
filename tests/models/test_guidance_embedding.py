"""The guidance scale as an input of the U-Net: its embedding, no effect at first, a fixed value."""

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

from distillery.models.lora.guidance_embedding import (
    EMBEDDING_DIM,
    add_scale_embedding,
    scale_embedding,
    tell_scale,
)
from distillery.models.lowrank.factorise import factorise_unet
from distillery.models.lowrank.ranks import plan_ranks
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel
from tiny_models import tiny_unet, unet_inputs


def told_unet() -> UNet2DConditionModel:
    """A small U-Net on which the scale has an effect."""
    unet = tiny_unet(
        layers_per_block=1, block_out_channels=(16, 32), time_cond_proj_dim=EMBEDDING_DIM
    )
    unet.time_embedding.cond_proj.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    return unet.requires_grad_(False)


def test_the_embedding_is_the_pipelines() -> None:
    """A pipeline embeds guidance_scale - 1."""
    scales = torch.tensor([1.0, 3.0, 7.5])
    wanted = StableDiffusionPipeline.get_guidance_scale_embedding(None, scales - 1, EMBEDDING_DIM)
    torch.testing.assert_close(scale_embedding(scales, EMBEDDING_DIM), wanted, rtol=0, atol=2e-3)
    assert scale_embedding(scales, 7).shape == (3, 7)


@pytest.mark.parametrize("kind", [UNet2DConditionModel, LowRankUNet2DConditionModel])
def test_it_changes_nothing_at_first(kind: type) -> None:
    unet = tiny_unet()
    if kind is LowRankUNet2DConditionModel:
        unet = factorise_unet(unet, plan_ranks(unet))[0]
    told = add_scale_embedding(unet).eval()
    assert type(told) is kind
    got = told(**unet_inputs(), timestep_cond=torch.randn(2, EMBEDDING_DIM)).sample
    assert torch.equal(got, unet(**unet_inputs()).sample)


def test_a_fixed_scale_is_told_unless_the_call_names_one() -> None:
    inputs = unet_inputs()
    named = [
        told_unet()(**inputs, timestep_cond=scale_embedding(torch.full((2,), s), 256)).sample
        for s in (3.0, 6.0)
    ]
    unet = tell_scale(told_unet(), 3.0)
    assert torch.equal(unet(**inputs).sample, named[0])
    other = scale_embedding(torch.full((2,), 6.0), 256)
    assert torch.equal(unet(**inputs, timestep_cond=other).sample, named[1])
    assert not torch.equal(*named)
    plain = tiny_unet()
    assert tell_scale(plain, 3.0) is plain
    assert not plain._forward_pre_hooks


def test_one_evaluation_in_a_plain_pipeline_at_any_scale() -> None:
    unet = told_unet()
    scheduler = DDIMScheduler(clip_sample=False, steps_offset=1)
    pipeline = StableDiffusionPipeline(
        vae=None, text_encoder=None, tokenizer=None, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    calls = []
    unet.register_forward_hook(lambda module, args, out: calls.append(args[0].shape[0]))
    text = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(9))
    images = [
        pipeline(
            prompt_embeds=text, latents=torch.ones(1, 16, 8, 8), num_inference_steps=2,
            guidance_scale=scale, output_type="latent", height=64, width=64,
        ).images
        for scale in (2.0, 6.0)
    ]  # fmt: skip
    assert calls == [1, 1, 1, 1]
    assert not torch.allclose(images[0], images[1])
