"""Runs the example of docs/kronecker.md as a reader would, from the root of a project."""

import re
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_runs(teacher, tmp_path, monkeypatch):
    teacher.save_pretrained(tmp_path / "data/scenes-sd/unet")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/kronecker.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    names = {}
    exec(compile(code, "docs/kronecker.md", "exec"), names)
    assert (tmp_path / "adapter/adapter_model.safetensors").exists()
    assert type(names["merged"]) is UNet2DConditionModel
    inputs = names["latents"], 10, names["text"]
    with torch.no_grad():
        trained, merged = names["model"](*inputs).sample, names["merged"](*inputs).sample
    torch.testing.assert_close(merged, trained, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(merged, teacher(*inputs).sample, rtol=1e-4, atol=1e-4)
