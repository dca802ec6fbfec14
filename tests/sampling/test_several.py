"""Several ControlNets as one: what they add up to."""

import pytest
import torch
from torch import nn

from distillery.diffusion.denoise import control_residuals
from distillery.models.student_controlnet.encode_once import answering, encoded_maps
from distillery.sampling.several import Several, Use


class Net(nn.Module):
    """A ControlNet whose residuals are the sums of its maps, each kind by its own factor."""

    def __init__(self, *factors: float) -> None:
        super().__init__()
        self.controlnet_cond_embedding = nn.Flatten(2)
        self.factors = nn.Parameter(torch.tensor(factors))
        self.num_encoded = 0
        self.num_calls = 0

    def forward(self, sample, timestep, controlnet_cond, return_dict, encoder_hidden_states):
        self.num_calls += 1
        per_kind = self.controlnet_cond_embedding(controlnet_cond).mean(2).split(3, dim=1)
        value = sum(f * m.mean(1) for f, m in zip(self.factors, per_kind, strict=True))
        # maps together do more than each alone
        value = value + per_kind[0].mean(1) * per_kind[-1].mean(1)
        return [value, 2 * value], 3 * value


def residuals(several, maps):
    told = {"text": torch.zeros(2, 1, 1)}
    features = encoded_maps(several, maps)
    with answering(several, features):
        given = control_residuals(several, torch.zeros(2, 1), torch.tensor(5), told, maps)
    return torch.stack(given)


@pytest.fixture
def maps():
    return torch.rand(2, 9, 4, 4, generator=torch.Generator().manual_seed(0))


def test_scaled_residuals_of_networks_add_up(maps):
    a, b = Net(1.0), Net(2.0)
    uses = [Use(a, ("canny",), {"canny": 0.5}), Use(b, ("depth",), {"depth": 2.0})]
    together = residuals(Several(uses, ("depth", "mask", "canny")), maps)
    depth, _, canny = maps.mean((2, 3)).split(3, dim=1)
    depth, canny = depth.mean(1), canny.mean(1)
    expected = 0.5 * (canny + canny**2) + 2 * (2 * depth + depth**2)
    torch.testing.assert_close(together[0], expected)
    torch.testing.assert_close(together[2], 3 * expected)


def test_an_adapter_s_scales_are_levels_of_the_sets_of_its_maps(maps):
    net = Net(1.0, 2.0, 4.0)
    kinds = ("canny", "sketch", "depth")

    def under(**scales):
        return residuals(Several([Use(net, kinds, scales)], kinds), maps)

    torch.testing.assert_close(under(canny=0.7, depth=0.7), 0.7 * under(canny=1.0, depth=1.0))
    expected = 0.5 * under(canny=1.0, depth=1.0) + 0.3 * under(depth=1.0)
    torch.testing.assert_close(under(canny=0.5, depth=0.8), expected)
    net.num_calls = 0
    under(canny=0.7, sketch=0.7, depth=0.7)
    assert net.num_calls == 1
