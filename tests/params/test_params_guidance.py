"""The section distill_guidance: what is accepted, and what is refused with a reason."""

import copy
from typing import Any

import pytest
from pydantic import ValidationError

from distillery.params.distill_guidance import DistillGuidance

VARIANT = {"objective": "teacher", "backbone": "teacher", "learning_rate": 1e-3, "steps": 1}
SECTION: dict[str, Any] = {
    "training": {
        "batch_size": 2, "weight_decay": 0.0, "warmup_steps": 1, "max_grad_norm": 1.0,
        "ema_decay": 0.0, "precision": "fp32", "weights": "fp32",
        "gradient_checkpointing": False, "optimizer": "adamw", "runtime": "eager",
        "matmul_precision": "highest", "memory_format": "auto", "accumulate_steps": 1,
        "checkpoint_every_steps": 1,
        "validate_every_steps": 1, "num_val_samples": 1,
    },
    "weighting": {"kind": "constant", "gamma": 5.0},
    "guidance": {"scale": 3.0, "rescale": 0.0, "online": True, "batched": True, "negative": False},
    "lora": {"r": 4, "alpha": 4.0, "targets": "all"},
    "variants": {
        "full_distill": {"update": "full", **VARIANT},
        "lora_distill": {"update": "lora", **VARIANT},
        "lora_distill_elr": {"update": "lora", **VARIANT, "backbone": "unet/elr"},
    },
}  # fmt: skip


def check(**changed: Any) -> DistillGuidance:
    """The section with values at dotted keys (`__` for the dot) changed."""
    section = copy.deepcopy(SECTION)
    for key, value in changed.items():
        *path, last = key.split("__")
        place = section
        for name in path:
            place = place[name]
        place[last] = value
    return DistillGuidance.model_validate(section)


def test_a_scale_is_one_or_a_range() -> None:
    assert check().guidance.scale_range == (3.0, 3.0)
    assert check(guidance__scale=7).guidance.scale_range == (7.0, 7.0)
    full_only = {"full_distill": SECTION["variants"]["full_distill"]}
    told = check(guidance__scale=[2.0, 8.0], variants=full_only)
    assert told.guidance.scale_range == (2.0, 8.0)


def test_a_range_with_a_lora_is_refused() -> None:
    with pytest.raises(
        ValidationError, match=r"w-embedding.*LoRA variant lora_distill cannot have"
    ):
        check(guidance__scale=[2.0, 8.0])


@pytest.mark.parametrize(
    "changed",
    [
        {"guidance__scale": [8.0, 2.0]},
        {"guidance__scale": [2.0, 4.0, 8.0]},
        {"guidance__scale": 0.0},
        {"guidance__rescale": 1.5},
        {"lora__r": 0},
        {"lora__targets": "some"},
        {"variants__lora_distill__backbone": "models/unet/elr"},
        {"variants__lora_distill__update": "adapter"},
    ],
)
def test_other_refusals(changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        check(**changed)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "weights: bf16 can't be computed with in fp32; set precision: bf16"),
        ({"precision": "fp16"}, "weights: bf16 can't be computed with in fp16"),
        ({"precision": "bf16", "optimizer": "adamw8bit"}, "weights: adamw8bit .* set optimizer"),
        ({"precision": "bf16", "ema_decay": 0.9}, "weights: an average .* set ema_decay: 0"),
    ],
)
def test_narrow_weights_that_make_no_sense_are_refused(changed: dict[str, Any], said: str) -> None:
    keys = {f"training__{name}": value for name, value in changed.items()}
    with pytest.raises(ValidationError, match=said):
        check(training__weights="bf16", **keys)
    assert check(training__weights="bf16", training__precision="bf16").training.weights == "bf16"
