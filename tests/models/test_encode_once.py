import pytest
import torch

from distillery.core.errors import DistilleryError
from distillery.models.control_adapter.adapter import ControlAdapter
from distillery.models.student_controlnet.encode_once import maps_encoded_once
from distillery.models.student_controlnet.model import PRESETS, build_student
from tiny_models import tiny_controlnet, tiny_unet


def _student(unet):
    return build_student(tiny_controlnet(unet), PRESETS["distilled"], seed=0)


@pytest.mark.parametrize("make", [tiny_controlnet, _student, ControlAdapter.from_unet])
def test_the_same_maps_are_encoded_once_and_give_the_same(make):
    torch.manual_seed(0)
    model = make(tiny_unet()).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # residuals start at zero
    channels = 3 * len(getattr(model.config, "conditions", "1"))
    sample = torch.randn(2, model.config.in_channels, 8, 8)
    text = torch.randn(2, 7, model.config.cross_attention_dim)
    encoder = getattr(model, "extractor", None) or model.controlnet_cond_embedding
    computed = []
    first = next(m for m in encoder.modules() if isinstance(m, torch.nn.Conv2d))
    first.register_forward_hook(lambda *_: computed.append(1))

    def mid(maps):
        with torch.no_grad():
            return model(sample, 500, text, maps, return_dict=False)[1]

    maps, others = torch.rand(2, channels, 64, 64), torch.rand(2, channels, 64, 64)
    expected, expected_others = mid(maps), mid(others)
    assert not torch.equal(expected, expected_others)
    computed.clear()
    hooked = encoder.forward  # as offloading leaves it, on the instance
    encoder.forward = lambda maps: hooked(maps)
    wrapped = encoder.forward
    with maps_encoded_once(model):
        assert all(torch.equal(mid(maps), expected) for _ in range(3))
        assert len(computed) == 1
        assert torch.equal(mid(others), expected_others)
        others.copy_(maps)  # the same tensor with other values
        assert torch.equal(mid(others), expected)
        assert len(computed) == 3
    assert torch.equal(mid(maps), expected)
    assert len(computed) == 4
    assert encoder.forward is wrapped


def test_inference_mode_encodes_once_too():
    model = _student(tiny_unet()).eval()
    computed = []
    model.controlnet_cond_embedding.conv_in.register_forward_hook(lambda *_: computed.append(1))
    with torch.inference_mode(), maps_encoded_once(model):
        maps = torch.rand(1, 3, 64, 64)
        for _ in range(2):
            model(torch.zeros(1, 16, 8, 8), 500, torch.zeros(1, 7, 32), maps)
    assert len(computed) == 1


def test_a_model_without_an_encoder_of_maps_is_refused():
    with (
        pytest.raises(DistilleryError, match="UNet2DConditionModel has no encoder"),
        maps_encoded_once(tiny_unet()),
    ):
        pass
