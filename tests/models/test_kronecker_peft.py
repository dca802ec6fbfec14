"""The Kronecker adapter through PEFT on plain and transformers models."""

import json
import subprocess
import sys

import peft
import pytest
import torch
from peft import LoraConfig, PeftModel, PeftType, get_peft_model, inject_adapter_in_model
from safetensors.torch import load_file
from torch import nn
from transformers import BertConfig, BertModel

from distillery.core.errors import DistilleryError
from distillery.models.kronecker import KroneckerConfig, KroneckerLayer, register

pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config`")


class Net(nn.Module):
    """A convolution with a stride, one of 1 x 1, and two linear layers."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.point = nn.Conv2d(8, 8, 1)
        self.wide = nn.Linear(8, 16)
        self.head = nn.Linear(16, 6)
        self.norm = nn.LayerNorm(6)

    def forward(self, x):
        x = torch.relu(self.point(torch.relu(self.conv(x)))).mean((2, 3))
        return self.norm(self.head(torch.relu(self.wide(x))))


TARGETS = ["conv", "point", "wide"]


def net(dtype=torch.float64):
    torch.manual_seed(0)
    return Net().to(dtype)


def inputs(dtype=torch.float64, seed=1):
    return torch.randn(3, 4, 9, 8, generator=torch.Generator().manual_seed(seed)).to(dtype)


def config(**changes):
    return KroneckerConfig(**{"n": 2, "r": 3, "target_modules": TARGETS, **changes})


def scramble(model, seed=2):
    """Random values in every trainable tensor, as after training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    return model


def trainable(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def layers(model):
    return [module for module in model.modules() if isinstance(module, KroneckerLayer)]


def test_registered_once_as_the_other_methods_are():
    register()
    assert PeftType("KRONECKER") is PeftType.KRONECKER is PeftType["KRONECKER"]
    assert list(PeftType).count("KRONECKER") == 1
    assert peft.get_peft_config({"peft_type": "KRONECKER", "n": 2, "target_modules": ["x"]}).n == 2


INSTALL = "from distillery.models.kronecker_autoload import install\ninstall()\n"


def test_from_pretrained_works_after_the_module_is_loaded_lazily(tmp_path, python):
    """PEFT is imported once more, in a process that has torch already."""
    get_peft_model(net(), config()).save_pretrained(tmp_path)
    code = (
        "import sys\n"
        "for name in [name for name in sys.modules if name.split('.')[0] == 'peft']:\n"
        "    del sys.modules[name]\n"
        f"{INSTALL}"
        "assert 'peft' not in sys.modules\n"
        "from peft import PeftConfig\n"
        f"print(type(PeftConfig.from_pretrained({str(tmp_path)!r})).__name__)"
    )
    command = [python / "python", "-c", code]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    assert found.stdout.split() == ["KroneckerConfig"]


def test_registering_lazily_imports_neither_torch_nor_peft():
    code = f"{INSTALL}import sys; assert not {{'torch', 'peft'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_starts_as_the_model_it_adapts_and_trains_only_the_factors(caplog):
    model = get_peft_model(net(), config())
    assert torch.equal(model(inputs()), net()(inputs()))
    kinds = {name.split(".")[-2] for name in trainable(model)}
    assert kinds == {"kronecker_A", "kronecker_u", "kronecker_v"}
    assert "'default': 3 layers adapted" in caplog.text


@pytest.mark.parametrize("zero", ["v", "u", "A"])
def test_the_zero_factor_wakes_first_and_the_others_one_step_later(zero):
    model = get_peft_model(net(), config(zero=zero))
    assert {n.split("_")[-1][0] for n, p in trainable(model).items() if not p.any()} == {zero}
    optimiser = torch.optim.SGD(trainable(model).values(), lr=0.5)
    for awake in ({zero}, {"A", "u", "v"}):
        before = {name: p.detach().clone() for name, p in trainable(model).items()}
        optimiser.zero_grad()
        model(inputs())[:, 0].sum().backward()
        optimiser.step()
        moved = {n for n, p in trainable(model).items() if not torch.equal(p, before[n])}
        assert moved == {n for n in before if n.split("_")[-1][0] in awake}


@pytest.mark.parametrize("alpha", [None, 0, 1, 7.5])
def test_merged_equals_unmerged(alpha):
    model = scramble(get_peft_model(net(), config(alpha=alpha)))
    expected = model(inputs())
    assert torch.equal(expected, net()(inputs())) == (alpha == 0)
    model.merge_adapter()
    torch.testing.assert_close(model(inputs()), expected, rtol=1e-12, atol=1e-12)
    model.unmerge_adapter()
    torch.testing.assert_close(model(inputs()), expected, rtol=1e-12, atol=1e-12)
    plain = model.merge_and_unload(safe_merge=True)
    assert type(plain) is Net
    assert not layers(plain)
    torch.testing.assert_close(plain(inputs()), expected, rtol=1e-12, atol=1e-12)


def test_the_weight_of_a_layer_is_the_scaled_sum_of_torch_kron():
    model = scramble(get_peft_model(net(), config(alpha=6.0)))
    layer = model.base_model.model.conv
    a, u, v = (getattr(layer, f"kronecker_{k}")["default"] for k in ("A", "u", "v"))
    update = 6.0 / 3 * sum(torch.kron(a[i], u[i] @ v[i]) for i in range(2))
    original = net().conv.weight
    merged = model.merge_and_unload().conv.weight
    torch.testing.assert_close(merged, original + update.view_as(original))


def test_saved_and_loaded_with_one_shared_a(tmp_path):
    model = scramble(get_peft_model(net(), config()))
    model.save_pretrained(tmp_path)
    assert sum("_A" in key for key in load_file(tmp_path / "adapter_model.safetensors")) == 1
    for options in ({}, {"low_cpu_mem_usage": True}, {"is_trainable": True}):
        loaded = PeftModel.from_pretrained(net(), tmp_path, **options)
        assert torch.equal(loaded(inputs()), model(inputs()))
        shared = {id(layer.a_owner["default"]["default"]) for layer in layers(loaded)}
        assert len(shared) == 1
        assert sum("_A" in name for name, _ in loaded.named_parameters()) == 1
        assert bool(trainable(loaded)) == ("is_trainable" in options)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (saved["n"], saved["r"], saved["alpha"], saved["zero"]) == (2, 3, 3, "v")


def test_number_of_parameters_with_a_shared_and_not():
    sizes = [(8, 36), (8, 8), (16, 8)]
    factors = sum(3 * (out + fan_in) for out, fan_in in sizes)
    for share, num_a in ((True, 1), (False, 3)):
        model = get_peft_model(net(), config(share_A=share))
        assert sum(p.numel() for p in trainable(model).values()) == factors + num_a * 2**3


def test_several_adapters_side_by_side_and_summed():
    model = scramble(get_peft_model(net(), config(alpha=6)))
    first = model(inputs())
    model.add_adapter("other", config(target_modules=["wide", "head"], share_A=False, zero="u"))
    assert torch.equal(model(inputs()), first)
    model.set_adapter("other")
    scramble(model, seed=3)
    assert all(".other" in name for name in trainable(model))
    second = model(inputs())
    model.base_model.set_adapter(["default", "other"])
    both = model(inputs())
    assert not torch.allclose(both, first)
    assert not torch.allclose(both, second)
    weights = [layer.get_delta_weight(a) for layer in layers(model) for a in layer.kronecker_u]
    assert len(weights) == 5
    model.delete_adapter("other")
    assert torch.equal(model(inputs()), first)


def test_disabled_adapter_is_the_base_model():
    model = scramble(get_peft_model(net(), config()))
    with model.disable_adapter():
        assert torch.equal(model(inputs()), net()(inputs()))
    assert torch.equal(model.unload()(inputs()), net()(inputs()))


def test_injected_without_a_wrapper():
    model = scramble(inject_adapter_in_model(config(), net()))
    assert type(model) is Net
    wrapped = scramble(get_peft_model(net(), config()))
    torch.testing.assert_close(model(inputs()), wrapped(inputs()))
    state = peft.get_peft_model_state_dict(model)
    other = inject_adapter_in_model(config(), net())
    peft.set_peft_model_state_dict(other, state)
    assert torch.equal(other(inputs()), model(inputs()))


def test_indivisible_layers(caplog):
    targets = ["conv", "wide", "head"]  # head is 6 x 16: 4 does not divide it
    with pytest.raises(DistilleryError, match=r"head: n = 4 does not divide .* 6 x 16"):
        get_peft_model(model := net(), config(n=4, target_modules=targets))
    assert not layers(model)
    skipping = config(n=4, target_modules=targets, indivisible="skip")
    assert len(layers(get_peft_model(net(), skipping))) == 2
    assert "head skipped" in caplog.text
    lora = get_peft_model(net(), config(n=4, target_modules=targets, indivisible="lora"))
    assert "3 layers adapted, 1 of them by plain LoRA" in caplog.text
    expected = scramble(lora)(inputs())
    head = lora.base_model.model.head
    u, v = head.kronecker_u["default"], head.kronecker_v["default"]
    torch.testing.assert_close(head.get_delta_weight("default"), u[0] @ v[0])
    torch.testing.assert_close(lora.merge_and_unload()(inputs()), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_modules": ["nowhere"]}, "none of nowhere"),
        ({"target_modules": ["head"], "n": 4, "indivisible": "skip"}, "none of head"),
        ({"target_modules": ["norm"]}, "norm: a LayerNorm cannot take"),
        ({"n": 0}, "n: 0 is not"),
        ({"r": 2.0}, "r: 2.0 is not"),
        ({"alpha": float("nan")}, "alpha: nan"),
        ({"zero": "both"}, "zero: 'both'"),
        ({"indivisible": "pad"}, "indivisible: 'pad'"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(DistilleryError, match=message):
        get_peft_model(net(), config(**changes))


def test_modules_to_save_and_excluded_ones():
    settings = config(
        target_modules="conv|point|wide|head", exclude_modules=["head"], modules_to_save=["norm"]
    )
    model = get_peft_model(net(), settings)
    assert len(layers(model)) == 3
    assert any("norm.modules_to_save" in name for name in trainable(model))


def test_half_precision_base_with_float32_factors():
    model = scramble(get_peft_model(net(torch.bfloat16), config()))
    assert {p.dtype for p in trainable(model).values()} == {torch.float32}
    result = model(inputs(torch.bfloat16))
    assert result.dtype == torch.bfloat16
    exact = scramble(get_peft_model(net(torch.bfloat16).double(), config()))(inputs())
    torch.testing.assert_close(result.double(), exact, rtol=0.1, atol=0.1)


def test_a_transformers_model_with_lora_beside_it():
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    torch.manual_seed(0)
    bert = BertModel(BertConfig(vocab_size=20, num_hidden_layers=2, **sizes)).eval()
    tokens = torch.arange(10).view(2, 5)
    before = bert(tokens).last_hidden_state
    model = get_peft_model(bert, KroneckerConfig(target_modules="all-linear"))
    assert len(layers(model)) == 13
    assert torch.equal(model(tokens).last_hidden_state, before)
    expected = scramble(model)(tokens).last_hidden_state
    merged = model.merge_and_unload()
    torch.testing.assert_close(merged(tokens).last_hidden_state, expected, rtol=1e-4, atol=1e-4)
    assert get_peft_model(merged, LoraConfig(target_modules=["query"])) is not None
