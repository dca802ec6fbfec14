"""LoRA on a U-Net: what is adapted, switching it off and on, merging, one copy of the weights."""

import copy
import gc

import pytest
import torch
from diffusers import UNet2DConditionModel

from distillery.core.errors import DistilleryError
from distillery.models.lora.layers import (
    adapters_off,
    add_lora,
    fuse_lora,
    lora_layers,
    lora_parameters,
    target_names,
)
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel
from tiny_models import tiny_unet, unet_inputs


@torch.no_grad()
def output(unet, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return unet(**unet_inputs(dtype)).sample


def with_lora(unet, *, r: int = 4, alpha: float = 6.0, targets: str = "all"):
    """A LoRA that does something: B is not zero."""
    add_lora(unet, r=r, alpha=alpha, targets=targets, seed=0)
    generator = torch.Generator().manual_seed(5)
    for parameter in lora_parameters(unet):
        parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)
    return unet


def is_on(unet) -> bool:
    return not any(layer.disable_adapters for layer in lora_layers(unet).values())


def test_targets(unet: UNet2DConditionModel, student: LowRankUNet2DConditionModel) -> None:
    attention = target_names(unet, "attention")
    assert len(attention) == 4 * 2 * (2 + 1 + 3)  # projections, attn1 and attn2, transformers
    assert all(".attn" in name for name in attention)
    every = target_names(unet, "all")
    assert {"conv_in", "conv_out", "time_embedding.linear_1"} <= set(every)
    assert set(every) == {n for n, m in unet.named_modules() if type(m).__name__ in _KINDS}
    factors = target_names(student, "attention")
    assert all(name.rsplit(".", 1)[1] in ("reduce", "expand", "to_q", "0") for name in factors)
    assert len(factors) > len(attention)


_KINDS = ("Linear", "Conv2d", "LoRACompatibleLinear", "LoRACompatibleConv")


def test_it_changes_nothing_at_first_and_alone_is_trained(unet: UNet2DConditionModel) -> None:
    before = output(unet)
    add_lora(unet, r=4, alpha=8, targets="all", seed=1)
    assert torch.equal(output(unet), before)
    trained = {n for n, p in unet.named_parameters() if p.requires_grad}
    assert trained == {n for n, _ in unet.named_parameters() if ".lora_" in n}
    same, other = (
        next(iter(lora_parameters(add_lora(tiny_unet(), r=4, alpha=8, targets="all", seed=seed))))
        for seed in (1, 2)
    )
    mine = lora_parameters(unet)[0]
    assert torch.equal(mine, same)
    assert not torch.equal(mine, other)
    with pytest.raises(DistilleryError, match="has a LoRA already"):
        add_lora(unet, r=4, alpha=8, targets="all", seed=1)


def test_a_half_precision_base_keeps_a_float32_lora() -> None:
    unet = add_lora(tiny_unet().to(torch.bfloat16), r=4, alpha=4, targets="all", seed=0)
    assert {p.dtype for p in lora_parameters(unet)} == {torch.float32}
    assert unet.dtype == torch.bfloat16
    assert output(unet, torch.bfloat16).isfinite().all()


def test_switched_off_it_is_the_base_bit_for_bit(unet: UNet2DConditionModel) -> None:
    base = output(unet)
    with_lora(unet).train()
    unet.mid_block.eval()
    modes = [module.training for module in unet.modules()]
    frozen = lora_parameters(unet)[0].requires_grad_(False)
    adapted = output(unet)
    assert not torch.equal(adapted, base)
    with adapters_off(unet) as teacher:
        assert not any(module.training for module in teacher.modules())
        assert torch.equal(output(teacher), base)
    assert is_on(unet)
    assert torch.equal(output(unet), adapted)
    assert [module.training for module in unet.modules()] == modes
    assert not frozen.requires_grad
    assert all(p.requires_grad for p in lora_parameters(unet)[1:])


def test_it_is_on_again_when_the_teacher_raises(unet: UNet2DConditionModel) -> None:
    with_lora(unet).train()
    with pytest.raises(RuntimeError, match="teacher"), adapters_off(unet):
        raise RuntimeError("teacher")
    assert is_on(unet)
    assert unet.training
    assert all(p.requires_grad for p in lora_parameters(unet))


def test_nested_and_without_adapters(unet: UNet2DConditionModel) -> None:
    with pytest.raises(DistilleryError, match="no LoRA to switch off"), adapters_off(unet):
        pass
    with_lora(unet)
    with adapters_off(unet):
        with adapters_off(unet):
            pass
        assert not is_on(unet)
    assert is_on(unet)


@pytest.mark.parametrize("low_rank", [False, True])
def test_merged_equals_unmerged(low_rank: bool, unet, student) -> None:
    chosen = with_lora(student if low_rank else unet).double()
    kind, names = type(chosen), {n for n, _ in tiny_or(student, low_rank).named_parameters()}
    adapted = output(chosen, torch.float64)
    fuse_lora(chosen)
    assert type(chosen) is kind
    assert {n for n, _ in chosen.named_parameters()} == names
    torch.testing.assert_close(output(chosen, torch.float64), adapted, rtol=0, atol=1e-12)
    with pytest.raises(DistilleryError, match="no LoRA to fuse"):
        fuse_lora(chosen)


def tiny_or(student, low_rank: bool):
    """An unchanged U-Net of the same architecture."""
    return type(student).from_config(student.config) if low_rank else tiny_unet()


def test_the_merged_weight_is_w_plus_alpha_over_r_b_a(unet: UNet2DConditionModel) -> None:
    layer = "down_blocks.0.resnets.1.conv1"
    w = unet.get_submodule(layer).weight.detach().clone().numpy()
    with_lora(unet, r=4, alpha=6.0)
    a, b = (
        unet.get_submodule(f"{layer}.lora_{kind}.default").weight.detach().numpy() for kind in "AB"
    )
    wanted = w + 6.0 / 4 * (b[:, :, 0, 0] @ a.reshape(4, -1)).reshape(w.shape)
    merged = fuse_lora(unet).get_submodule(layer).weight
    torch.testing.assert_close(merged.detach(), torch.from_numpy(wanted), rtol=1e-5, atol=1e-6)


def test_a_lora_that_is_not_finite_is_not_merged(unet: UNet2DConditionModel) -> None:
    with_lora(unet)
    lora_parameters(unet)[0].data.fill_(float("nan"))
    with pytest.raises(DistilleryError, match="NaN; train it again"):
        fuse_lora(unet)


def num_copies(weight: torch.Tensor) -> int:
    """Storages in this process that hold the values of `weight`."""
    gc.collect()
    found = set()
    for thing in gc.get_objects():
        is_alike = isinstance(thing, torch.Tensor) and thing.shape == weight.shape
        if is_alike and torch.equal(thing.detach().to(weight), weight):
            found.add(thing.untyped_storage().data_ptr())
    return len(found)


def test_num_copies_sees_a_copy(unet: UNet2DConditionModel) -> None:
    weight = unet.conv_in.weight
    weight.data = torch.randn(weight.shape, generator=torch.Generator().manual_seed(77))
    assert num_copies(weight) == 1
    other = copy.deepcopy(weight)
    assert num_copies(other) == 2
