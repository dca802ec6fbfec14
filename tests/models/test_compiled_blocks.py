"""Compiled blocks: which are, while what runs, and that they compute what the plain ones do."""

import copy
import os

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D

from distillery.models import compiled_blocks
from distillery.models.checkpointing import recompute_activations
from distillery.models.compiled_blocks import with_compiled_blocks
from distillery.models.lowrank.factorise import factorise_unet
from distillery.models.lowrank.ranks import plan_ranks


@pytest.fixture
def unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), cross_attention_dim=8, attention_head_dim=4,
        norm_num_groups=4, layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip


@pytest.fixture
def seen(monkeypatch) -> list[str]:
    """Kinds of the blocks that ran by way of the compiler, which is a stand-in."""
    names: list[str] = []

    def stand_in(forward, **_):
        def run(block, *args, **options):
            names.append(type(block).__name__)
            return forward(block, *args, **options)

        return run

    monkeypatch.setattr(torch, "compile", stand_in)
    compiled_blocks._compiled.cache_clear()
    yield names
    compiled_blocks._compiled.cache_clear()


def _gradients(model: torch.nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(2, 4, 8, 8, generator=generator)
    text = torch.randn(2, 3, 8, generator=generator)
    model.zero_grad()
    model(sample, 5, text).sample.square().mean().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def _trained(model: torch.nn.Module, backward) -> torch.Tensor:
    """Its weights after 20 steps of SGD; Adam would enlarge gradients that are rounding alone."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(20):
        backward(model)
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_every_residual_and_transformer_block_runs_compiled(unet, seen):
    plain = _gradients(unet)
    assert not seen
    assert torch.equal(plain, with_compiled_blocks(_gradients)(unet))
    assert len(seen) == sum(isinstance(m, tuple(compiled_blocks.BLOCKS)) for m in unet.modules())
    assert set(seen) == {"ResnetBlock2D", "BasicTransformerBlock"}


def test_recomputed_activations_are_those_of_the_forward_pass(unet, seen):
    plain = _gradients(unet)
    recompute_activations(unet.train())
    assert torch.equal(plain, with_compiled_blocks(_gradients)(unet))
    assert set(seen) == {"ResnetBlock2D", "BasicTransformerBlock"}
    assert len(seen) > sum(isinstance(m, ResnetBlock2D) for m in unet.modules())


def test_within_one_another_blocks_are_compiled_once(unet, seen):
    with_compiled_blocks(with_compiled_blocks(_gradients))(unet)
    assert len(seen) == sum(isinstance(m, tuple(compiled_blocks.BLOCKS)) for m in unet.modules())
    seen.clear()
    _gradients(unet)
    assert not seen


def test_nothing_is_compiled_after_an_error(unet, seen):
    def fail(model):
        _gradients(model)
        raise KeyError("late")

    with pytest.raises(KeyError):
        with_compiled_blocks(fail)(unet)
    seen.clear()
    _gradients(unet)
    assert not seen


@pytest.mark.skipif(
    not os.environ.get("DISTILLERY_TEST_COMPILE"),
    reason="compiling takes a minute of processor time; DISTILLERY_TEST_COMPILE=1 runs it",
)
@pytest.mark.parametrize("kind", ["dense", "low_rank", "recomputed"])
def test_the_compiler_s_blocks_train_as_plain_ones(unet, kind):
    if kind == "low_rank":
        unet = factorise_unet(unet, plan_ranks(unet))[0]
    if kind == "recomputed":
        recompute_activations(unet.train())
    plain = _gradients(unet)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    found = with_compiled_blocks(_gradients)(unet)
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-6)
    eager, compiled = _trained(unet, _gradients), _trained(unet, with_compiled_blocks(_gradients))
    torch.testing.assert_close(compiled, eager, rtol=0, atol=1e-6)
    assert float((eager - _trained(unet, lambda model: None)).abs().max()) > 1e-3  # it learned
    # 12 blocks in 9 sets of shapes, each compiled once and in one piece.
    counters = torch._dynamo.utils.counters
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 9
