import pytest
import torch
from torch import nn
from torch.nn import functional

from distillery.core.errors import DistilleryError
from distillery.models.layers import layer_shapes
from distillery.models.lowrank.moments import collect_second_moments
from tiny_models import unet_inputs


def input_rows(model, batches):
    """Inputs of every Linear and Conv2d as float64 rows, patches unfolded: the plain definition."""
    rows = {}

    def keep(name):
        def hook(layer, args):
            x = args[0].double()
            if isinstance(layer, nn.Conv2d):
                x = functional.unfold(x, layer.kernel_size, 1, layer.padding, layer.stride)
                x = x.transpose(1, 2)
            rows.setdefault(name, []).append(x.reshape(-1, x.shape[-1]))

        return hook

    for name in layer_shapes(model):
        model.get_submodule(name).register_forward_pre_hook(keep(name))
    with torch.no_grad():
        for batch in batches:
            model(**batch)
    return {name: torch.cat(parts) for name, parts in rows.items()}


def test_moments_are_those_of_unfolded_inputs_or_their_image_under_the_weight(unet):
    batches = [unet_inputs(seed=1), unet_inputs(seed=2)]
    moments = collect_second_moments(unet, batches, chunk_rows=100)
    rows = input_rows(unet, batches)
    assert moments.keys() == rows.keys() == layer_shapes(unet).keys()
    sides = set()
    for name, x in rows.items():
        weight = unet.get_submodule(name).weight.detach().flatten(1).double()
        of_outputs = weight.shape[0] < weight.shape[1]
        sides.add(of_outputs)
        vectors = x @ weight.T if of_outputs else x
        expected = vectors.T @ vectors / len(vectors)
        difference = (moments[name] - expected).norm() / expected.norm()
        assert difference < 1e-5, name
    assert sides == {True, False}


def test_stride_padding_and_dilation_are_respected():
    conv = nn.Conv2d(2, 32, 3, stride=2, padding=1, dilation=2)
    x = torch.randn(3, 2, 9, 9)
    moment = collect_second_moments(conv, [(x,)])[""]
    patches = functional.unfold(x.double(), 3, 2, 1, 2).transpose(1, 2).reshape(-1, 18)
    torch.testing.assert_close(moment, patches.T @ patches / len(patches))


def test_batches_may_be_tuples_and_the_model_is_left_as_it_was(unet):
    unet.train()
    inputs = unet_inputs()
    named = collect_second_moments(unet, [inputs], names=["conv_out"])
    positional = collect_second_moments(unet, [tuple(inputs.values())], names=["conv_out"])
    assert torch.equal(named["conv_out"], positional["conv_out"])
    assert unet.training
    assert not any(module._forward_hooks for module in unet.modules())


def test_single_precision_accumulation_is_close(unet):
    exact = collect_second_moments(unet, [unet_inputs()], names=["mid_block.resnets.0.conv1"])
    single = collect_second_moments(
        unet, [unet_inputs()], names=["mid_block.resnets.0.conv1"], dtype=torch.float32
    )
    for name, moment in exact.items():
        torch.testing.assert_close(single[name].double(), moment, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("names", "batches", "message"),
    [
        (["mid_block.nothing"], [unet_inputs()], "mid_block.nothing is not a Linear"),
        (["conv_out"], [], "conv_out: no batch reached"),
        (
            ["conv_out"],
            [{**unet_inputs(), "sample": torch.full((2, 16, 8, 8), torch.inf)}],
            "conv_out: activations are NaN",
        ),
    ],
)
def test_refuses_what_gives_no_moments(unet, names, batches, message):
    with pytest.raises(DistilleryError, match=message):
        collect_second_moments(unet, batches, names=names)
