"""The three distances of ControlNet distillation against NumPy; who gets gradients."""

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor

from controlnet_toy import KIND, VIEW, tiny_controlnet
from distillery.diffusion.batch import Batch
from distillery.diffusion.control import (
    ControlTeacher,
    num_residuals,
    online_residuals,
)
from distillery.diffusion.controlnet import DistillControlNet, Factors
from distillery.diffusion.layerwise import Layerwise
from distillery.diffusion.objectives import Diffusion
from tiny_models import tiny_unet

ALPHA_BAR = torch.linspace(0.999, 0.0, 1000)
FACTORS = Factors(diffusion=0.5, teacher=2.0, kd=3.0)


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    return tiny_unet().requires_grad_(False)


@pytest.fixture(scope="module")
def teacher(unet: UNet2DConditionModel) -> ControlNetModel:
    return tiny_controlnet(unet).requires_grad_(False)


@pytest.fixture
def student(teacher: ControlNetModel) -> ControlNetModel:
    """Not the teacher, and not zero."""
    made = ControlNetModel.from_config(teacher.config)
    made.load_state_dict(teacher.state_dict())
    torch.manual_seed(9)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return made.eval()


@pytest.fixture(scope="module")
def batch() -> Batch:
    generator = torch.Generator().manual_seed(2)
    latents, noise, outputs = (torch.randn(3, 16, 8, 8, generator=generator) for _ in range(3))
    text = torch.randn(3, 5, 32, generator=generator)
    maps = torch.rand(3, 3, 64, 64, generator=generator)
    timesteps = torch.tensor([3, 500, 999])
    return Batch(
        ["a", "b", "c"], latents, noise, timesteps, {"text": text}, {VIEW: outputs}, {KIND: maps}
    )


def _objective(
    unet: UNet2DConditionModel,
    teacher: ControlNetModel,
    student: ControlNetModel,
    factors: Factors = FACTORS,
    view: str | None = VIEW,
) -> DistillControlNet:
    diffusion = Diffusion.create(
        ALPHA_BAR, "v_prediction", space="native", kind="min_snr", gamma=5.0
    )
    layerwise = Layerwise(student, num_residuals(unet), "teacher", "sample") if factors.kd else None
    asked = ControlTeacher(unet, online_residuals(teacher, KIND), view)
    return DistillControlNet(KIND, diffusion, asked, factors, layerwise)


def _run(unet: UNet2DConditionModel, net: ControlNetModel, batch: Batch) -> tuple[list, np.ndarray]:
    """Residuals and the U-Net's output with them, called as diffusers' pipelines do."""
    alpha_bar = ALPHA_BAR[batch.timesteps].view(3, 1, 1, 1)
    noisy = alpha_bar.sqrt() * batch.latents + (1 - alpha_bar).sqrt() * batch.noise
    with torch.no_grad():
        given = net(
            noisy,
            batch.timesteps,
            batch.conditioning["text"],
            controlnet_cond=batch.conditions[KIND],
        )
        output = unet(
            noisy,
            batch.timesteps,
            batch.conditioning["text"],
            down_block_additional_residuals=given.down_block_res_samples,
            mid_block_additional_residual=given.mid_block_res_sample,
        ).sample
    residuals = [*given.down_block_res_samples, given.mid_block_res_sample]
    return [r.double().numpy() for r in residuals], output.double().numpy()


def _weighted(output: np.ndarray, wanted: Tensor, batch: Batch) -> float:
    """Min-SNR 5 in v (Hang et al. 2023): min(SNR + 1, 5) / (SNR + 1) per sample."""
    alpha_bar = ALPHA_BAR[batch.timesteps].double().numpy()
    ratio = np.maximum(alpha_bar / (1 - alpha_bar), 1e-3) + 1
    errors = ((output - wanted.double().numpy()) ** 2).mean((1, 2, 3))
    return float((np.minimum(ratio, 5) / ratio * errors).mean())


def test_all_terms_are_those_of_numpy(unet, teacher, student, batch) -> None:
    theirs, _ = _run(unet, teacher, batch)
    mine, output = _run(unet, student, batch)
    alpha_bar = ALPHA_BAR[batch.timesteps].view(3, 1, 1, 1)
    velocity = alpha_bar.sqrt() * batch.noise - (1 - alpha_bar).sqrt() * batch.latents
    wanted = {
        "diffusion": 0.5 * _weighted(output, velocity, batch),
        "teacher": 2.0 * _weighted(output, batch.outputs[VIEW], batch),
    }
    names = ["kd_0", "kd_1", "kd_2", "kd_3", "kd_4", "kd_5", "kd_mid"]
    for name, t, s in zip(names, theirs, mine, strict=True):
        mean, sigma = t.mean((1, 2, 3), keepdims=True), t.std((1, 2, 3), keepdims=True)
        distance = (((t - mean) / sigma - (s - mean) / sigma) ** 2).mean()
        wanted[name] = 3.0 * distance / len(names)
    terms = _objective(unet, teacher, student)(student, batch)
    assert list(terms) == list(wanted)
    for name, value in wanted.items():
        assert float(terms[name].detach()) == pytest.approx(value, rel=1e-3), name


def test_the_teacher_itself_has_no_distance(unet, teacher, batch) -> None:
    objective = _objective(unet, teacher, teacher, view=None)
    terms = {name: float(term) for name, term in objective(teacher, batch).items()}
    assert terms.pop("diffusion") > 0
    assert set(terms.values()) == {0.0}


def test_the_cached_and_the_online_output_give_the_same_loss(unet, teacher, student, batch) -> None:
    _, output = _run(unet, teacher, batch)
    given = Batch(**{**batch.__dict__, "outputs": {VIEW: torch.from_numpy(output).float()}})
    with torch.no_grad():
        cached, online = (
            _objective(unet, teacher, student, view=view)(student, given)["teacher"]
            for view in (VIEW, None)
        )
    torch.testing.assert_close(cached, online)
    assert float(cached) > 0


def test_only_the_student_gets_gradients_and_nothing_else_changes(
    unet, teacher, student, batch
) -> None:
    before = [{n: t.clone() for n, t in m.state_dict().items()} for m in (unet, teacher)]
    terms = _objective(unet, teacher, student, view=None)(student, batch)
    sum(terms.values()).backward()
    assert all(p.grad is not None for p in student.controlnet_down_blocks.parameters())
    for module, state in zip((unet, teacher), before, strict=True):
        assert all(p.grad is None for p in module.parameters())
        assert all(torch.equal(t, state[n]) for n, t in module.state_dict().items())


def test_what_has_factor_0_is_not_computed(unet, teacher, student, batch, monkeypatch) -> None:
    only = _objective(unet, teacher, student, Factors(1.0, 0.0, 0.0))
    with torch.no_grad():
        assert list(only(student, batch)) == ["diffusion"]
        monkeypatch.setattr(UNet2DConditionModel, "forward", None)
        layers = _objective(unet, teacher, student, Factors(0.0, 0.0, 1.0))
        assert list(layers(student, batch))[-1] == "kd_mid"
