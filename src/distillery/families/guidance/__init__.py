"""Guidance distillation: students that answer the guided teacher in one evaluation a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distillery.families.base import BACKBONE, Family, Part, Prediction
from distillery.families.facts import Facts, Shown, Texts
from distillery.families.snippets import ONCE, guidance_unet, program


class _Guidance(Family):
    def load(self, name, folders, device, dtype):
        from distillery.families.description import read_description
        from distillery.families.load import Student, load_backbone
        from distillery.models.lora.files import load_guidance_unet  # imports peft

        backbone = load_backbone(folders, device, dtype)
        sampling = read_description(folders.weights).sampling
        unet = load_guidance_unet(
            folders.weights, backbone,
            scale=folders.guidance_scale, negative=sampling.takes_negative,
        )  # fmt: skip
        learned = None if sampling.is_told_scale else sampling.guidance_scale
        is_guided = sampling.evaluations_per_step > 1
        return Student(
            unet, is_guided=is_guided, learned_scale=learned, takes_negative=sampling.takes_negative
        )

    def profiled(self, folders, teacher):
        from distillery.cost.workload import Profiled, unet_alone
        from distillery.families.load import load_backbone
        from distillery.models.lora.files import load_guidance_unet  # imports peft

        fused, unet = (
            load_guidance_unet(folders.weights, load_backbone(folders, teacher.device), fuse=fuse)
            for fuse in (True, False)
        )
        adapters = [p for name, p in unet.named_parameters() if "lora_" in name]
        trained = adapters or list(unet.parameters())
        for parameter in trained:
            parameter.requires_grad_(True)
        return Profiled(
            unet, {"unet": unet}, unet_alone(fused), trained, "U-Net evaluation, LoRA fused",
            {"unet": fused}, unet_alone(unet),
        )  # fmt: skip

    def baselines(self, teacher, unet):
        from distillery.cost.workload import Profiled, batched, two_calls, unet_alone

        return {
            f"guidance/{name}": Profiled(unet, {"unet": unet}, guide(unet_alone(unet)))
            for name, guide in (("teacher_batched", batched), ("teacher_two_calls", two_calls))
        }


def _size(name: str, variant: Mapping[str, Any], section: Mapping[str, Any], known: Any) -> Any:
    import torch

    from distillery.cost import accounting
    from distillery.families.sizes import Sized
    from distillery.models.lora.layers import add_lora
    from distillery.models.lora.negative import add_negative

    unet = known.backbone(variant["backbone"]).requires_grad_(True)
    macs = known.macs({"unet": unet})
    if variant["update"] == "lora":  # fused for use, so it costs nothing then
        with torch.device("meta"):
            add_lora(unet, **section["lora"], seed=0)
    if section["guidance"]["negative"] and variant["objective"] == "teacher":
        with torch.device("meta"):
            add_negative(unet)
    return Sized(
        accounting.entry_of(f"guidance/{name}", "params", accounting.UNET, {"unet": unet}), macs
    )


def _snippet(model: str, settings: Mapping[str, Any]) -> str:
    backbone = settings.get("backbone", "teacher")
    once = ONCE if settings["objective"] == "teacher" else ""
    if settings["update"] == "lora" and backbone == "teacher":
        return program([], "", "", once, f'pipeline.load_lora_weights("models/{model}")')
    return program([guidance_unet(model, backbone, settings)], "unet=unet", "", once)


GUIDANCE = _Guidance(
    name="guidance",
    stage="distill_guidance",
    variants_key="distill_guidance.variants",
    builds_on=(Part(BACKBONE, "backbone"),),
    views=("cond", "uncond"),
    prediction=Prediction(is_guided=True),
    profile_rows=("lora_", "full_"),
)
FACTS = Facts(
    sizes=_size,
    shown=Shown(
        teacher="teacher/guided",
        students=("guidance/lora_distill", "guidance/full_distill"),
        qualities=("reader_shape", "lpips", "kid"),
        costs=("train_memory_bytes", "parameters_in_optimiser"),
        cost_baseline="guidance/full_finetune",
        tables=("guidance_memory",),
        beside=("teacher/guided", "teacher/unguided"),
        strip=("teacher/guided", "teacher/unguided"),
    ),
    texts=Texts(
        "Guidance in one evaluation",
        "Classifier-free guidance asks the U-Net twice per step. The student learns the guided "
        "answer and is asked once; as a LoRA it needs no second copy of the weights.",
        "Guidance",
        {
            "full_finetune": "Full fine-tuning",
            "full_distill": "Full distillation",
            "lora_finetune": "LoRA fine-tuning",
            "lora_distill": "LoRA distillation",
            "lora_distill_elr": "LoRA distillation on ELR's U-Net",
            "lora_distill_planned": "LoRA distillation on the planned U-Net",
            "teacher_batched": "Guided teacher, one batched call",
            "teacher_two_calls": "Guided teacher, two calls",
        },
        _snippet,
    ),
)
