"""What sampling an image costs at full size, as a table of small builders.

In: a pipeline's parts on the meta device. Out: for each row the modules that must lie in memory and
one evaluation of a batch. Rows of a group are timed in turn. Nothing has weights here; running and
measuring is `inference_run`.

A fused LoRA leaves shape and number of all weights as they are (`models.lora.layers.fuse_lora`), so
the teacher's U-Net stands for a student with one, and the low-rank U-Net for a low-rank one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from distillery.cost.accounting import ALIGNED, low_rank_unet, teacher_controlnet
from distillery.cost.workload import (
    Run,
    batched,
    controlnet_alone,
    decoding,
    text_encoding,
    two_calls,
    unet_alone,
    with_control,
)
from distillery.models.lowrank.ranks import read_ranks, read_removed
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel
from distillery.models.student_controlnet.model import PRESETS, StudentControlNet

Parts = Mapping[str, nn.Module]
PREFIX = "inference/"
TEXT, DECODER = f"{PREFIX}text_encoder", f"{PREFIX}vae_decoder"
WHOLE_CONTROLNET = "distilled"
_UNET, _CONTROLNET, _IMAGE = (
    "U-Net evaluation",
    "ControlNet evaluation",
    "denoising step of an image",
)


@dataclass(frozen=True)
class Evaluation:
    """`parts` by the names that `count_parameters` knows; `run` evaluates a batch with them."""

    parts: dict[str, nn.Module]
    run: Run


@dataclass(frozen=True)
class InferenceRow:
    """`per`: what one evaluation is. `num_prompts`: texts that an image of such steps needs
    encoded; 0 where the row is not all that a step runs."""

    title: str
    group: str
    build: Callable[[Parts], Evaluation]
    per: str = _UNET
    num_prompts: int = 0


def planned_unet(unet: nn.Module, plan: Path) -> nn.Module:
    """The U-Net of a plan that `distillery ranks --out` wrote, on meta."""
    ranks, removed = read_ranks(plan, unet), read_removed(plan, unet)
    return LowRankUNet2DConditionModel.empty(unet.config, ranks, removed)


def shared_parts(parts: Parts) -> dict[str, nn.Module]:
    """The parts with their ControlNet, which rows of a group share in memory."""
    return {**parts, "controlnet": teacher_controlnet(parts)}


def _same(run: Run) -> Run:
    return run


def _unet(guide: Callable[[Run], Run]) -> Callable[[Parts], Evaluation]:
    return lambda parts: Evaluation({"unet": parts["unet"]}, guide(unet_alone(parts["unet"])))


def _low_rank(multiple_of: int) -> Callable[[Parts], Evaluation]:
    def build(parts: Parts) -> Evaluation:
        unet = low_rank_unet(parts["unet"], multiple_of)
        return Evaluation({"unet": unet}, unet_alone(unet))

    return build


def _planned(parts: Parts) -> Evaluation:
    return Evaluation({"unet": parts["planned"]}, unet_alone(parts["planned"]))


def _text_encoder(parts: Parts) -> Evaluation:
    encoder = parts["text_encoder"]
    return Evaluation({"text_encoder": encoder}, text_encoding(encoder))


def _vae_decoder(parts: Parts) -> Evaluation:
    return Evaluation({"vae": parts["vae"]}, decoding(parts["vae"]))


def _controlnet(preset: str | None) -> Callable[[Parts], Evaluation]:
    def build(parts: Parts) -> Evaluation:
        net = _student(parts, preset) if preset else parts["controlnet"]
        return Evaluation({"controlnet": net}, controlnet_alone(net))

    return build


def _student(parts: Parts, preset: str) -> StudentControlNet:
    return StudentControlNet.empty(parts["controlnet"], PRESETS[preset])


def _whole_student(parts: Parts) -> Evaluation:
    unet, net = low_rank_unet(parts["unet"]), _student(parts, WHOLE_CONTROLNET)
    return Evaluation({"unet": unet, "controlnet": net}, with_control(unet, net))


def _whole_teacher(guide: Callable[[Run], Run]) -> Callable[[Parts], Evaluation]:
    def build(parts: Parts) -> Evaluation:
        unet, net = parts["unet"], parts["controlnet"]
        return Evaluation({"unet": unet, "controlnet": net}, guide(with_control(unet, net)))

    return build


def _controlnets() -> dict[str, InferenceRow]:
    models = {"teacher": (None, "The teacher's ControlNet")}
    models |= {name: (name, f"Student ControlNet {name}") for name in PRESETS}
    return {
        f"{PREFIX}controlnet/{name}": InferenceRow(
            title, "controlnet", _controlnet(preset), _CONTROLNET
        )
        for name, (preset, title) in models.items()
    }


PLANNED = f"{PREFIX}unet/planned"  # only with a plan, whose U-Net is the part `planned`
INFERENCE_ROWS = {
    f"{PREFIX}unet/dense": InferenceRow("The teacher's U-Net alone", "unet", _unet(_same)),
    f"{PREFIX}unet/low_rank": InferenceRow(
        "Low-rank U-Net alone, a third of every rank", "unet", _low_rank(1)
    ),
    f"{PREFIX}unet/low_rank_aligned": InferenceRow(
        f"The same, ranks in multiples of {ALIGNED}", "unet", _low_rank(ALIGNED)
    ),
    PLANNED: InferenceRow("Planned U-Net alone", "unet", _planned),
    f"{PREFIX}guidance/lora_distill": InferenceRow(
        "Student, LoRA fused, one evaluation", "guidance", _unet(_same),
        f"{_UNET}, LoRA fused", 1,
    ),
    f"{PREFIX}guidance/teacher_batched": InferenceRow(
        "Guided teacher, both halves in one batch", "guidance", _unet(batched),
        "guided step in one batched U-Net evaluation", 2,
    ),
    f"{PREFIX}guidance/teacher_two_calls": InferenceRow(
        "Guided teacher, two calls", "guidance", _unet(two_calls),
        "guided step in two U-Net evaluations", 2,
    ),
    TEXT: InferenceRow("Text encoder", "guidance", _text_encoder, "text encoding, one prompt"),
    DECODER: InferenceRow("VAE decoder", "guidance", _vae_decoder, "image decoding, VAE whole"),
    **_controlnets(),
    f"{PREFIX}whole/student": InferenceRow(
        f"Low-rank U-Net, fused guidance LoRA, {WHOLE_CONTROLNET} ControlNet, one evaluation",
        "whole", _whole_student, _IMAGE, 1,
    ),
    f"{PREFIX}whole/teacher": InferenceRow(
        "Guided teacher with its full ControlNet, both halves in one batch", "whole",
        _whole_teacher(batched), _IMAGE, 2,
    ),
    f"{PREFIX}whole/teacher_two_calls": InferenceRow(
        "Guided teacher with its full ControlNet, two calls", "whole",
        _whole_teacher(two_calls), _IMAGE, 2,
    ),
}  # fmt: skip
