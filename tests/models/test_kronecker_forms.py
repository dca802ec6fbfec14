"""All forms of a Kronecker update are one function, and the choice follows what they cost."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from distillery.models.kronecker import KroneckerConfig, forms
from distillery.models.kronecker.layers import kronecker_layer
from distillery.models.layers import low_rank_like

LAYERS = {
    "linear": lambda: nn.Linear(16, 24),
    "conv": lambda: nn.Conv2d(16, 24, 3, padding=1),
    "strided conv": lambda: nn.Conv2d(16, 24, 3, stride=2, padding=1, bias=False),
    "low-rank linear": lambda: low_rank_like(nn.Linear(16, 24), 5),
    "low-rank conv": lambda: low_rank_like(nn.Conv2d(16, 24, 3, stride=2, padding=1), 5),
}
WORK = forms.Work(positions=4096, out=320, fan_in=320, n=4, r=8)


def _adapted(make) -> nn.Module:
    torch.manual_seed(0)
    layer = kronecker_layer(make().requires_grad_(False))
    layer.update_layer("default", KroneckerConfig(n=4, r=3, target_modules=["x"]))
    layer.set_adapter(["default"])
    for factors in (layer.kronecker_A, layer.kronecker_u, layer.kronecker_v):
        nn.init.normal_(factors["default"], std=0.3)
    return layer


def _run(layer: nn.Module, x: Tensor) -> list[Tensor]:
    layer.zero_grad()
    x = x.clone().requires_grad_()
    output = layer(x)
    output.square().sum().backward()
    trained = [p.grad.clone() for p in layer.parameters() if p.requires_grad]
    return [output.detach(), x.grad, *trained]


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("form", forms.FORMS)
def test_every_form_gives_the_same_output_and_gradients(monkeypatch, kind: str, form: str):
    if form == "joined" and "low-rank" not in kind:
        pytest.skip("joins two pairs of factors")
    layer = _adapted(LAYERS[kind])
    x = torch.randn(2, 16, 6, 6) if "conv" in kind else torch.randn(2, 5, 16)
    expected = _run(layer, x)
    monkeypatch.setattr(forms, "kernels_cost", lambda device: True)
    monkeypatch.setattr(forms, "choose", lambda work, device: form)
    called, chosen = [], forms.FORMS[form]
    spy = {form: lambda *args: called.append(1) or chosen(*args)}
    monkeypatch.setattr(forms, "FORMS", spy)
    found = _run(layer, x)
    assert called
    for one, other in zip(expected, found, strict=True):
        assert float((one - other).abs().max()) < 1e-6 * max(1.0, float(one.abs().max()))


@pytest.mark.parametrize("form", forms.FORMS)
def test_narrow_frozen_weights_give_narrow_outputs(monkeypatch, form: str):
    layer = _adapted(LAYERS["low-rank conv"])
    layer.base_layer.to(torch.bfloat16)
    x = torch.randn(2, 16, 6, 6, dtype=torch.bfloat16)
    expected = layer(x)
    monkeypatch.setattr(forms, "kernels_cost", lambda device: True)
    monkeypatch.setattr(forms, "choose", lambda work, device: form)
    found = layer(x)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


def test_without_its_adapter_a_layer_is_as_it_was(monkeypatch):
    layer = _adapted(LAYERS["linear"])
    monkeypatch.setattr(forms, "kernels_cost", lambda device: True)
    monkeypatch.setattr(forms, "choose", lambda work, device: "built")
    x = torch.randn(3, 16)
    layer.enable_adapters(False)
    assert torch.equal(layer(x), layer.base_layer(x))


def test_on_the_cpu_arithmetic_is_what_costs():
    assert forms.choose(WORK, torch.device("cpu")) == "apart"


def test_on_a_gpu_the_form_follows_sizes():
    cuda = torch.device("cuda")
    assert forms.choose(WORK, cuda) == "built"  # many positions, a small weight
    large = replace(WORK, positions=256, out=1280, fan_in=11520)
    assert forms.choose(large, cuda) == "branch"
    small = replace(large, fan_in=1280, rank=426)
    assert forms.choose(small, cuda) == "joined"
    assert forms.choose(replace(WORK, has_blocks=False), cuda) == "apart"
    times = [forms.predicted_s(replace(WORK, positions=p), "branch") for p in (64, 4096, 2**20)]
    assert times == sorted(times)
    assert times[0] == pytest.approx(14 * forms.KERNEL_S, rel=0.01)


def test_sizes_are_those_of_the_call():
    layer = _adapted(LAYERS["low-rank conv"])
    x, v = torch.randn(2, 16, 6, 6), layer.kronecker_v["default"]
    work = forms.work_of(layer.base_layer, layer.shape, x, v)
    assert work == forms.Work(2 * 3 * 3, 24, 144, 4, 3, 5)
