"""Objectives against direct computation; feature distance and its scale."""

import numpy as np
import torch
from torch import nn

from distillery.diffusion.objectives import (
    Denoise,
    Diffusion,
    DistillOutput,
    FeatureDistance,
    cached_output,
    online_output,
)
from toy import ALPHA_BAR, ToySamples, ToyUNet


def _diffusion(kind: str = "constant", prediction_type: str = "v_prediction") -> Diffusion:
    return Diffusion.create(ALPHA_BAR, prediction_type, space="native", kind=kind, gamma=5.0)


def test_denoise_matches_a_direct_computation() -> None:
    model, batch = ToyUNet().eval(), ToySamples().batch(np.array([3, 7, 19]))
    alpha = ALPHA_BAR[batch.timesteps].sqrt().view(-1, 1, 1, 1)
    sigma = (1 - ALPHA_BAR[batch.timesteps]).sqrt().view(-1, 1, 1, 1)
    noisy = alpha * batch.latents + sigma * batch.noise
    said = model(noisy, batch.timesteps, batch.conditioning["text"]).sample
    wanted = {
        "v_prediction": alpha * batch.noise - sigma * batch.latents,
        "epsilon": batch.noise,
    }
    for prediction_type, target in wanted.items():
        got = Denoise(_diffusion(prediction_type=prediction_type))(model, batch)["diffusion"]
        torch.testing.assert_close(got, (said - target).square().mean())


def test_the_cached_and_the_online_teacher_give_the_same_loss() -> None:
    student, teacher = ToyUNet().eval(), ToyUNet().eval()
    batch = ToySamples().batch(np.arange(6))
    diffusion = _diffusion("min_snr")
    with torch.no_grad():
        output = teacher(diffusion.noisy(batch), batch.timesteps, batch.conditioning["text"]).sample
    teacher.dtype = torch.float32
    batch.outputs["cond"] = output
    cached = DistillOutput(diffusion, cached_output("cond"))(student, batch)["output"]
    online = DistillOutput(diffusion, online_output(teacher))(student, batch)["output"]
    assert torch.equal(cached, online)


class _Blocks(nn.Module):
    """Three blocks named as in a U-Net, scaled by 100 each."""

    def __init__(self) -> None:
        super().__init__()
        self.down_blocks = nn.ModuleList([nn.Linear(4, 4)])
        self.mid_block = nn.Linear(4, 4)
        self.up_blocks = nn.ModuleList([nn.Linear(4, 4)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in (self.down_blocks[0], self.mid_block, self.up_blocks[0]):
            x = 100 * block(x)
        return x


def test_feature_distance_is_relative_to_each_level() -> None:
    torch.manual_seed(0)
    teacher, student = _Blocks(), _Blocks()
    features = FeatureDistance(student, teacher)
    x = torch.randn(5, 4)
    teacher(x), student(x)
    between = float(features.distance().detach())
    assert 0.1 < between < 30  # raw squared distances of the levels are 1 : 10^4 : 10^8
    student.load_state_dict(teacher.state_dict())
    teacher(x), student(x)
    assert float(features.distance().detach()) == 0.0
