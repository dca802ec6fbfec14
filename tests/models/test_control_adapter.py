"""The control adapter: identity at the start, what trains, counts, saving and loading."""

from pathlib import Path

import pytest
import torch
from control_helpers import (
    KRONECKER,
    encoder_features,
    inputs,
    low_rank_unet,
    pass_through,
    trained,
)
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from distillery.core.errors import DistilleryError
from distillery.models.architectures import ARCHITECTURES
from distillery.models.control_adapter.adapter import UNI_CONTROLNET_KINDS, ControlAdapter
from distillery.models.kronecker import KroneckerLayer
from tiny_models import tiny_unet

BACKBONES = {"dense": tiny_unet, "low_rank": low_rank_unet}
# In the shape of SD 2.1: a head count per level, linear projections, no attention at the bottom.
FOUR_LEVELS = {
    "block_out_channels": (32, 32, 64, 64), "attention_head_dim": (2, 2, 4, 4),
    "use_linear_projection": True,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}  # fmt: skip


def _controlled(unet: UNet2DConditionModel, adapter: nn.Module, scale: float = 1.0) -> Tensor:
    latents, timesteps, text, hint = inputs()
    with torch.no_grad():
        down, mid = adapter(latents, timesteps, text, hint, scale, return_dict=False)
        return unet(
            latents, timesteps, text,
            down_block_additional_residuals=down, mid_block_additional_residual=mid,
        ).sample  # fmt: skip


@pytest.mark.parametrize("kronecker", [None, KRONECKER], ids=["full", "kronecker"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_nothing_changes_at_the_start(backbone: str, kronecker: dict | None):
    unet = BACKBONES[backbone]()
    adapter = ControlAdapter.from_unet(unet, kronecker=kronecker)
    latents, timesteps, text, hint = inputs()
    with torch.no_grad():
        assert torch.equal(_controlled(unet, adapter), unet(latents, timesteps, text).sample)
    wanted = encoder_features(unet, latents, timesteps, text)
    for condition in (hint, torch.zeros_like(hint)):
        with torch.no_grad():
            down, mid = pass_through(adapter)(
                latents, timesteps, text, condition, return_dict=False
            )
        for mine, theirs in zip([*down, mid], wanted, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)


def test_four_levels_as_stable_diffusion_2():
    unet = tiny_unet(**FOUR_LEVELS)
    adapter = pass_through(ControlAdapter.from_unet(unet, kronecker=KRONECKER))
    latents, timesteps, text, hint = inputs(num_samples=3)
    with torch.no_grad():
        down, mid = adapter(latents, timesteps, text, hint, return_dict=False)
    wanted = encoder_features(unet, latents, timesteps, text)
    assert len(down) == 12
    for mine, theirs in zip([*down, mid], wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)
    with pytest.raises(DistilleryError, match="multiples of 64"):
        adapter(latents[..., :4], timesteps, text, hint[..., :32])


def _group(name: str) -> str:
    marks = {
        "controlnet_": "zero convolutions", ".kronecker_v.": "v", ".kronecker_": "u and A",
        ".zero_convs.": "zero()", "extractor.": "extractor", ".phi_": "phi",
    }  # fmt: skip
    for mark, group in marks.items():
        if mark in name:
            return f"{group} bias" if group == "phi" and name.endswith("bias") else group
    return "encoder"


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(
    ("kronecker", "second", "third"),
    [
        (KRONECKER, {"v", "zero()", "phi bias"}, {"u and A", "extractor", "phi"}),
        (None, {"encoder", "zero()", "phi bias"}, {"extractor", "phi"}),
    ],
    ids=["kronecker", "full"],
)
def test_every_group_wakes_within_three_steps(backbone, kronecker, second: set, third: set):
    unet = BACKBONES[backbone]().requires_grad_(False)
    adapter = ControlAdapter.from_unet(unet, kronecker=kronecker).train()
    start = {name: p.detach().clone() for name, p in adapter.named_parameters()}
    backbone_before = {name: t.clone() for name, t in unet.state_dict().items()}
    mine = [p for p in adapter.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(mine, lr=1e-2, weight_decay=0.0)
    woken: list[set[str]] = []
    for step in range(3):
        latents, timesteps, text, hint = inputs(seed=step)
        down, mid = adapter(latents, timesteps, text, hint, return_dict=False)
        output = unet(
            latents, timesteps, text,
            down_block_additional_residuals=down, mid_block_additional_residual=mid,
        ).sample  # fmt: skip
        output.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        woken.append({n for n, p in adapter.named_parameters() if not torch.equal(p, start[n])})
    groups = [{_group(name) for name in names} for names in woken]
    assert groups[0] == {"zero convolutions"}
    assert groups[1] == groups[0] | second
    assert groups[2] == groups[1] | third
    assert woken[2] == {name for name, p in adapter.named_parameters() if p.requires_grad}
    after = unet.state_dict()
    assert all(torch.equal(after[name], value) for name, value in backbone_before.items())


def test_only_what_is_meant_trains():
    full = ControlAdapter.from_unet(tiny_unet())
    frozen = {name for name, p in full.named_parameters() if not p.requires_grad}
    denorms = [f"down_blocks.{i}.resnets.0.norm{k}.norm" for i in (0, 1) for k in (1, 2)]
    assert frozen == {f"{name}.{part}" for name in denorms for part in ("weight", "bias")}
    kronecker = ControlAdapter.from_unet(tiny_unet(), kronecker=KRONECKER)
    trained_groups = {_group(n) for n, p in kronecker.named_parameters() if p.requires_grad}
    frozen_groups = {_group(n) for n, p in kronecker.named_parameters() if not p.requires_grad}
    assert frozen_groups == {"encoder"}
    assert "encoder" not in trained_groups


def test_a_low_rank_adapter_has_as_many_branches():
    dense, low = (
        ControlAdapter.from_unet(make(), kronecker=KRONECKER) for make in BACKBONES.values()
    )
    branches = [
        [n for n, m in a.named_modules() if isinstance(m, KroneckerLayer)] for a in (dense, low)
    ]
    assert branches[0] == branches[1]
    layers = [
        name for name, m in ControlAdapter.from_unet(tiny_unet()).named_modules()
        if isinstance(m, nn.Linear | nn.Conv2d)
        and name.startswith(("conv_in", "time_embedding", "down_blocks", "mid_block"))
        and ".phi_" not in name
    ]  # fmt: skip
    assert branches[0] == layers


def test_scale_and_guess_mode():
    unet = tiny_unet()
    adapter = trained(ControlAdapter.from_unet(unet)).eval()
    latents, timesteps, text, hint = inputs()
    with torch.no_grad():
        assert torch.equal(_controlled(unet, adapter, 0.0), unet(latents, timesteps, text).sample)
        whole = adapter(latents, timesteps, text, hint)
        half = adapter(latents, timesteps, text, hint, conditioning_scale=0.5)
        guessed = adapter(latents, timesteps, text, hint, guess_mode=True)
    torch.testing.assert_close(half.mid_block_res_sample * 2, whole.mid_block_res_sample)
    first = [result.down_block_res_samples[0] for result in (whole, guessed)]
    torch.testing.assert_close(first[0] * 0.1, first[1])
    torch.testing.assert_close(guessed.mid_block_res_sample, whole.mid_block_res_sample)


def test_samples_do_not_mix_and_batches_may_be_odd():
    adapter = trained(ControlAdapter.from_unet(tiny_unet(), kronecker=KRONECKER)).eval()
    batch = inputs(num_samples=3)
    with torch.no_grad():
        together = adapter(*batch).mid_block_res_sample
        alone = [adapter(*(t[i : i + 1] for t in batch)).mid_block_res_sample for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-4)


def test_gradient_checkpointing_gives_the_same_gradients():
    gradients = []
    for checkpointing in (False, True):
        adapter = trained(ControlAdapter.from_unet(tiny_unet(), kronecker=KRONECKER)).train()
        if checkpointing:
            adapter.enable_gradient_checkpointing()
        adapter(*inputs()).mid_block_res_sample.square().mean().backward()
        gradients.append({n: p.grad for n, p in adapter.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert any("extractor.stem.0" in name for name in gradients[0])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], msg=name)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_saved_adapters_load_with_one_shared_a(backbone: str, tmp_path: Path):
    adapter = trained(ControlAdapter.from_unet(BACKBONES[backbone](), kronecker=KRONECKER)).eval()
    adapter.save_pretrained(tmp_path)
    loaded = ControlAdapter.from_pretrained(tmp_path)
    weights = adapter.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in loaded.state_dict().items())
    torch.testing.assert_close(  # mapped weights lie elsewhere in memory: other kernels, last bits
        adapter(*inputs()).mid_block_res_sample, loaded(*inputs()).mid_block_res_sample
    )
    assert loaded.config.kronecker == KRONECKER
    assert loaded.config.conditions == ["canny", "sketch", "segmentation"]
    assert sum(".kronecker_A." in name for name in loaded.state_dict()) == 1
    with torch.no_grad():
        for name, parameter in loaded.named_parameters():
            if ".kronecker_A." in name:
                parameter.zero_()
        layers = [m for m in loaded.modules() if isinstance(m, KroneckerLayer)]
        assert all(not m.factors("default")[0].any() for m in layers)
    trains = [{n for n, p in a.named_parameters() if p.requires_grad} for a in (adapter, loaded)]
    assert trains[0] == trains[1]


def test_start_depends_on_the_seed_alone():
    first, _, other = (
        ControlAdapter.from_unet(tiny_unet(), kronecker=KRONECKER, seed=seed) for seed in (1, 5, 2)
    )
    again = ControlAdapter.from_unet(tiny_unet(), kronecker=KRONECKER, seed=1).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.state_dict().items())
    assert not torch.equal(first.extractor.stem[0].weight, other.extractor.stem[0].weight)


def test_counts_of_stable_diffusion():
    adapter = ControlAdapter.empty(
        ARCHITECTURES["sd15"]["unet"] | _BLOCKS, conditions=UNI_CONTROLNET_KINDS, norm="official"
    )
    assert sum(p.numel() for p in adapter.parameters()) == 411_903_552  # Uni-ControlNet's 411.904M


_BLOCKS = {
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "mid_block_type": "UNetMidBlock2DCrossAttn",
}


def test_shapes_of_stable_diffusion_2_on_meta():
    adapter = ControlAdapter.empty(ARCHITECTURES["sd21"]["unet"] | _BLOCKS).to("meta")
    with torch.device("meta"):
        latents, text = torch.empty(1, 4, 64, 64), torch.empty(1, 77, 1024)
        down, mid = adapter(latents, 1, text, torch.empty(1, 9, 512, 512), return_dict=False)
    assert len(down) == 12
    assert tuple(down[3].shape) == (1, 320, 32, 32)
    assert tuple(mid.shape) == (1, 1280, 8, 8)


def test_other_unets_are_refused():
    unet = tiny_unet(class_embed_type="timestep")
    with pytest.raises(DistilleryError, match="class_embed_type"):
        ControlAdapter.from_unet(unet)
    with pytest.raises(DistilleryError, match="no layer 'controlnet_mid_block'"):
        ControlAdapter.empty(tiny_unet().config, ranks={"controlnet_mid_block": 4})
