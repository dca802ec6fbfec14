"""The guided target against direct computation, its teachers, and the shared copy of weights."""

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from distillery.diffusion.batch import Batch
from distillery.diffusion.conditioning import SCALE
from distillery.diffusion.guidance import (
    DistillGuided,
    Negatives,
    OnlinePair,
    Scales,
    cached_pair,
    guided,
)
from distillery.diffusion.objectives import Diffusion, online_output
from distillery.diffusion.prediction import alpha_sigma, convert
from distillery.models.lora.guidance_embedding import EMBEDDING_DIM, scale_embedding
from distillery.models.lora.layers import add_lora, lora_layers, lora_parameters
from distillery.models.lora.negative import add_negative
from models.test_lora import num_copies
from tiny_models import tiny_unet

ALPHA_BAR = torch.linspace(0.999, 0.01, 1000)
BLOCKS = {"layers_per_block": 1, "block_out_channels": (16, 32), "norm_num_groups": 8}


def small_unet(**changes) -> UNet2DConditionModel:
    return tiny_unet(**BLOCKS, **changes)


def draw_batch(count: int = 3, dtype: torch.dtype = torch.float32) -> Batch:
    generator = torch.Generator().manual_seed(3)
    latents, noise, text = (
        torch.randn(count, *shape, generator=generator, dtype=dtype)
        for shape in ((16, 8, 8), (16, 8, 8), (5, 32))
    )
    timesteps = torch.tensor([11, 500, 990])[:count]
    return Batch([str(n) for n in range(count)], latents, noise, timesteps, {"text": text})


def diffusion(prediction_type: str = "epsilon") -> Diffusion:
    return Diffusion.create(ALPHA_BAR, prediction_type, space="native", kind="constant", gamma=5.0)


def empty(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(9)).to(dtype)


def train_mode_lora(**changes) -> UNet2DConditionModel:
    """A small U-Net with a LoRA that does something."""
    unet = add_lora(small_unet(**changes), r=2, alpha=4, targets="all", seed=0).train()
    generator = torch.Generator().manual_seed(5)
    for parameter in lora_parameters(unet):
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return unet


def online(unet, *, batched: bool = True, shared: bool = False) -> OnlinePair:
    return OnlinePair(unet, {"text": empty()}, batched=batched, shared=shared)


def test_the_target_is_two_evaluations_extrapolated() -> None:
    """eps(0) + s (eps(y) - eps(0)), written out in NumPy from two separate calls."""
    unet, batch = small_unet(), draw_batch()
    noisy = diffusion().noisy(batch)
    with torch.no_grad():
        with_text = unet(noisy, batch.timesteps, batch.conditioning["text"]).sample.numpy()
        without = unet(noisy, batch.timesteps, empty().repeat(3, 1, 1)).sample.numpy()
    wanted = without + 7.5 * (with_text - without)
    objective = DistillGuided(diffusion(), online(unet), Scales(7.5, 7.5))
    said, target = objective.outputs(unet, batch)
    np.testing.assert_allclose(target.numpy(), wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(said.detach().numpy(), with_text, atol=1e-6)
    loss = objective(unet, batch)["output"].detach()
    assert float(loss) == pytest.approx(float(((with_text - wanted) ** 2).mean()), rel=1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-12)])
def test_batched_sequential_and_cached_agree(dtype: torch.dtype, tolerance: float) -> None:
    unet, batch = small_unet().to(dtype), draw_batch(dtype=dtype)
    noisy = diffusion().noisy(batch).to(dtype)
    pairs = [
        OnlinePair(unet, {"text": empty(dtype)}, b, shared=False)(batch, noisy)
        for b in (True, False)
    ]
    cached = dataclasses.replace(
        batch, outputs=dict(zip(("cond", "uncond"), pairs[1], strict=True))
    )
    pairs.append(cached_pair(cached, noisy))
    scales = torch.full((3,), 7.5, dtype=torch.float64)
    first, *others = (guided(*pair, scales) for pair in pairs)
    assert first.dtype == dtype
    for other in others:
        torch.testing.assert_close(other, first, rtol=0, atol=tolerance)


def test_guidance_in_v_is_guidance_in_eps() -> None:
    batch = draw_batch()
    noisy = diffusion("v_prediction").noisy(batch)
    alpha, sigma = alpha_sigma(ALPHA_BAR, batch.timesteps)
    pair_v = online(small_unet())(batch, noisy)
    pair_eps = [convert(v, noisy, alpha, sigma, "v", "eps") for v in pair_v]
    scales = torch.full((3,), 3.0)
    wanted = guided(*pair_eps, scales)
    got = convert(guided(*pair_v, scales), noisy, alpha, sigma, "v", "eps")
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_a_v_teacher_is_learned_in_v() -> None:
    student, batch = small_unet(), draw_batch()
    scales = Scales(3.0, 3.0)
    as_eps, as_v = (
        DistillGuided(diffusion(kind), online(student), scales)(student, batch)["output"]
        for kind in ("epsilon", "v_prediction")
    )
    torch.testing.assert_close(as_eps, as_v)  # weight 1 in the native space, whichever it is


@pytest.mark.parametrize("phi", [0.0, 0.7, 1.0])
def test_rescale_is_diffusers_own(phi: float) -> None:
    cond, uncond = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = guided(cond, uncond, torch.tensor([2.0, 5.0, 9.0]))
    got = guided(cond, uncond, torch.tensor([2.0, 5.0, 9.0]), rescale=phi)
    torch.testing.assert_close(got, rescale_noise_cfg(plain, cond, phi))
    if phi == 1.0:
        torch.testing.assert_close(got.flatten(1).std(1), cond.flatten(1).std(1))


def test_scales_are_drawn_in_training_and_spread_in_validation() -> None:
    scales = Scales(2.0, 8.0)
    torch.manual_seed(0)
    drawn = scales.draw(1000, random=True)
    assert 2 <= drawn.min() < 2.1 < 7.9 < drawn.max() <= 8
    assert scales.draw(3, random=False).tolist() == [3.0, 5.0, 7.0]
    assert Scales(3.0, 3.0).draw(2, random=True).tolist() == [3.0, 3.0]
    assert not Scales(3.0, 3.0).varies


def test_a_share_has_its_own_scales_of_the_whole_batch() -> None:
    objective = DistillGuided(diffusion(), online(small_unet()), Scales(2.0, 8.0))

    def drawn(*given) -> list[float]:
        torch.manual_seed(0)
        return objective.prepare(draw_batch(), *given).drawn[SCALE].tolist()

    first, second = drawn(0, 2), drawn(1, 2)
    torch.manual_seed(0)
    assert sorted(first + second) == sorted(Scales(2.0, 8.0).draw(6, random=True).tolist())
    assert len(set(first + second)) == 6


def test_the_student_is_told_each_samples_scale() -> None:
    student, batch = small_unet(time_cond_proj_dim=EMBEDDING_DIM), draw_batch()
    objective = DistillGuided(diffusion(), online(small_unet()), Scales(2.0, 8.0))
    seen = []
    student.register_forward_pre_hook(
        lambda m, args, kw: seen.append(kw["timestep_cond"]), with_kwargs=True
    )
    said, target = objective.outputs(student, batch)
    scales = torch.tensor([3.0, 5.0, 7.0])
    torch.testing.assert_close(seen[0], scale_embedding(scales, EMBEDDING_DIM))
    pair = objective.teacher(batch, diffusion().noisy(batch))
    torch.testing.assert_close(target, guided(*pair, scales))
    said.sum().backward()
    assert student.time_embedding.cond_proj.weight.grad.abs().sum() > 0


def test_half_are_led_away_from_a_drawn_prompt() -> None:
    """What the student learns is the teacher guided away from that prompt, and it is told which."""
    student, teacher, batch = small_unet(), small_unet(), draw_batch()
    text = batch.conditioning["text"]
    bank, empty = torch.randn(5, *text.shape[1:]), torch.zeros(1, *text.shape[1:])
    pair = online(teacher)
    negatives = Negatives(bank, empty, online_output(teacher))
    objective = DistillGuided(diffusion(), pair, Scales(3.0, 3.0), negatives=negatives)
    torch.manual_seed(0)
    drawn = negatives.draw(1000, random=True)
    assert 400 < int((drawn < 0).sum()) < 600
    assert set(drawn.tolist()) == {-1, 0, 1, 2, 3, 4}
    seen = []
    student.register_forward_pre_hook(lambda m, a, kw: seen.append(kw), with_kwargs=True)
    add_negative(student)
    said, target = objective.outputs(student, batch)  # by turns: none, number 1, none
    told = seen[0]["negative_difference"]
    assert torch.equal(told, torch.stack([torch.zeros_like(text[0]), bank[1], 0 * text[0]]))
    noisy = diffusion().noisy(batch)
    cond, uncond = pair(batch, noisy)
    asked = dataclasses.replace(batch, conditioning={"text": bank[1].expand_as(text)})
    uncond[1] = online_output(teacher)(asked, noisy)[1]
    torch.testing.assert_close(target, guided(cond, uncond, torch.full((3,), 3.0)))
    said.sum().backward()
    assert student.negative_prompt.weight.grad.abs().sum() > 0


def test_one_copy_of_the_weights_before_during_and_after_training() -> None:
    """The teacher is the base bit for bit at each moment, and no weight is there twice."""
    untouched, batch = small_unet(), draw_batch()
    weights = [untouched.conv_in.weight, untouched.mid_block.resnets[0].conv1.weight]
    noisy = diffusion().noisy(batch)
    wanted = online(untouched)(batch, noisy)
    student = train_mode_lora()
    del untouched
    weights = [w.detach().clone() for w in weights]
    teacher = online(student, shared=True)
    objective = DistillGuided(diffusion(), teacher, Scales(3.0, 3.0))
    optimizer = torch.optim.AdamW(lora_parameters(student), lr=1e-2)
    during = []
    hook = lambda *_: during.append([num_copies(w) - 1 for w in weights])  # noqa: E731
    for step in range(3):
        got = teacher(batch, noisy)
        assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
        handle = student.conv_out.register_forward_hook(hook) if step == 1 else None
        objective(student, batch)["output"].backward()
        if handle:
            handle.remove()
        optimizer.step()
    got = teacher(batch, noisy)
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    assert during == [[1, 1], [1, 1]]  # in the teacher's and in the student's evaluation


def gradients(checkpointing: bool, *, shared: bool, batched: bool = True) -> list[torch.Tensor]:
    student, batch = train_mode_lora(), draw_batch()
    if checkpointing:
        student.enable_gradient_checkpointing()
    teacher = online(student if shared else small_unet(), batched=batched, shared=shared)
    DistillGuided(diffusion(), teacher, Scales(3.0, 3.0))(student, batch)["output"].backward()
    assert not any(layer.disable_adapters for layer in lora_layers(student).values())
    assert student.training
    return [p.grad for p in lora_parameters(student)]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_adapters_are_on_in_backward(checkpointing: bool) -> None:
    """Recomputing with the adapters off would give no gradient, or another."""
    wanted = gradients(checkpointing=False, shared=False)
    got = gradients(checkpointing, shared=True)
    assert all(float(g.abs().sum()) > 0 for g in got)
    for mine, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batched", [True, False])
def test_adapters_are_on_after_the_teacher_raises(batched: bool) -> None:
    student, batch = train_mode_lora(), draw_batch()
    teacher = online(student, batched=batched, shared=True)
    broken = dataclasses.replace(batch, conditioning={"text": batch.conditioning["text"][:, :, :7]})
    with pytest.raises(RuntimeError):
        teacher(broken, diffusion().noisy(batch))
    assert not any(layer.disable_adapters for layer in lora_layers(student).values())
    assert student.training
    objective = DistillGuided(diffusion(), teacher, Scales(3.0, 3.0))
    objective(student, batch)["output"].backward()
    assert all(p.grad is not None for p in lora_parameters(student))


def test_the_teacher_leaves_no_graph_and_no_gradient() -> None:
    unet, batch = small_unet(), draw_batch()
    pair = online(unet)(batch, diffusion().noisy(batch))
    assert not any(output.requires_grad for output in pair)
