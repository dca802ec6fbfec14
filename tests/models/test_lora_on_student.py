"""A low-rank student as the backbone of a LoRA: a step, a file, the same answers from it."""

import copy
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from distillery.models.lora.files import load_lora, save_lora
from distillery.models.lora.layers import add_lora, lora_parameters
from tiny_models import tiny_pipeline, unet_inputs


def test_a_step_is_learned_saved_and_loaded(student, tmp_path: Path) -> None:
    base = copy.deepcopy(student)
    add_lora(student, r=4, alpha=8.0, targets="attention", seed=0)
    optimizer = torch.optim.AdamW(lora_parameters(student), lr=1e-2)
    target = torch.zeros(2, 16, 8, 8)
    losses = []
    for _ in range(2):
        loss = torch.nn.functional.mse_loss(student(**unet_inputs()).sample, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[1] < losses[0]
    save_lora(student, tmp_path)

    pipeline: StableDiffusionPipeline = tiny_pipeline(layers_per_block=2)
    pipeline.unet = copy.deepcopy(base)
    pipeline.load_lora_weights(str(tmp_path))
    with torch.no_grad():
        learned, before = (unet(**unet_inputs()).sample for unet in (student, base))
        for loaded in (load_lora(base, tmp_path), pipeline.unet):
            torch.testing.assert_close(loaded(**unet_inputs()).sample, learned, rtol=0, atol=1e-6)
    assert (learned - before).abs().max() > 1e-3
