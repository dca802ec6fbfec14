"""What the report knows about names: families, their order, and what to call a model.

In: a variant's name, `<family>/<variant>`. Out: labels, and per family which student is shown
first, what it is compared with, and which qualities and costs say most. Only words and orders
stand here; every number comes from a run.
"""

from dataclasses import dataclass

from distillery.families.card import FAMILY_TEXTS
from distillery.metrics.catalog import CATALOG

LABELS = {
    "teacher/guided": "Teacher",
    "teacher/unguided": "Teacher, no guidance",
    "teacher/guided_offset": "Teacher, other noise",
    "teacher/control_canny": "Teacher + ControlNet",
    "teacher/control_sketch": "Teacher + ControlNet, sketch",
    "teacher/control_segmentation": "Teacher + ControlNet, segmentation",
    "teacher/control_canny_offset": "Teacher + ControlNet, other noise",
    "whole/student": "Whole student",
    "whole/student_planned": "Whole student, planned ranks",
    "unet/elr": "ELR Stage I",
    "unet/svd_only": "SVD only, untrained",
    "unet/svd_no_kd": "SVD, no distillation",
    "unet/random_kd": "Random start, distilled",
    "unet/decomposed_no_kd": "Low-rank from scratch",
    "unet/standard_no_kd": "Dense from scratch",
    "unet/elr_balanced": "ELR, balanced factors",
    "unet/elr_data_aware": "ELR, data-aware SVD",
    "unet/elr_planned": "ELR, planned ranks",
    "control/uni_controlnet": "Uni-ControlNet",
    "control/elr_dense": "ELR adapter, dense U-Net",
    "control/elr_no_kd": "ELR adapter, U-Net w/o distillation",
    "control/elr": "ELR adapter",
    "controlnet/original": "ControlNet, no distillation",
    "controlnet/reduced_channel": "Reduced channel",
    "controlnet/reduced_layer": "Reduced layer",
    "controlnet/reduced_layer_d": "Reduced layer, diffusion loss only",
    "controlnet/reduced_layer_d_td": "Reduced layer, no layerwise loss",
    "controlnet/modulated": "Modulated",
    "controlnet/loha": "LoHa",
    "controlnet/distilled": "Distilled, ours",
    "guidance/full_finetune": "Full fine-tuning",
    "guidance/full_distill": "Full distillation",
    "guidance/lora_finetune": "LoRA fine-tuning",
    "guidance/lora_distill": "LoRA distillation",
    "guidance/lora_distill_elr": "LoRA distillation on ELR's U-Net",
    "guidance/lora_distill_planned": "LoRA distillation on planned ranks",
    "guidance/teacher_batched": "Guided teacher, one batched call",
    "guidance/teacher_two_calls": "Guided teacher, two calls",
    "whole/teacher": "Guided teacher with ControlNet",
    "teacher": "Teacher",
    "sd21/dense": "Stable Diffusion 2.1",
    "sd21/low_rank": "SD 2.1, low-rank U-Net",
}
# Not shown where models are compared: the same model with other noise.
SUFFIX_OFFSET = "_offset"
# What control adds is seen against the teacher's images of the same prompts without any map.
UNCONTROLLED = "teacher/guided"
UNCONTROLLED_LABEL = "Teacher, uncontrolled"
WITH_CONTROL = ("control", "controlnet", "whole")


@dataclass(frozen=True)
class Family:
    """One method's models. `qualities` and `costs` in order of how much they say; costs are
    compared with `cost_baseline`, or the teacher."""

    name: str
    title: str
    lede: str
    tables: tuple[str, ...]
    teacher: str
    students: tuple[str, ...]
    qualities: tuple[str, ...]
    costs: tuple[str, ...]
    cost_baseline: str = ""

    def main_student(self, variants: list[str]) -> str | None:
        """The student that stands for the family: the first known one, or any."""
        own = [variant for variant in variants if variant.startswith(f"{self.name}/")]
        return next((variant for variant in self.students if variant in own), (*own, None)[0])


FAMILIES = (
    Family(
        "whole",
        *FAMILY_TEXTS["whole"],
        (),
        "teacher/control_canny",
        ("whole/student",),
        ("reader_shape", "edge_f1", "kid"),
        ("parameters_total", "latency_s"),
        "whole/teacher",
    ),
    Family(
        "unet",
        *FAMILY_TEXTS["unet"],
        ("elr_table1",),
        "teacher/guided",
        ("unet/elr",),
        ("reader_shape", "kid", "prediction_distance"),
        ("parameters_unet", "latency_s"),
    ),
    Family(
        "control",
        *FAMILY_TEXTS["control"],
        ("elr_table2", "elr_table3"),
        "control/uni_controlnet",
        ("control/elr", "control/elr_dense"),
        ("edge_f1", "miou", "kid"),
        ("parameters_in_optimiser", "train_step_s"),
    ),
    Family(
        "controlnet",
        *FAMILY_TEXTS["controlnet"],
        ("controlnet",),
        "teacher/control_canny",
        ("controlnet/distilled", "controlnet/loha", "controlnet/modulated"),
        ("edge_f1", "kid_teacher", "lpips_pair"),
        ("parameters_adapter", "latency_s"),
    ),
    Family(
        "guidance",
        *FAMILY_TEXTS["guidance"],
        ("guidance_memory",),
        "teacher/guided",
        ("guidance/lora_distill", "guidance/full_distill"),
        ("reader_shape", "lpips", "kid"),
        ("train_memory_bytes", "parameters_in_optimiser"),
        "guidance/full_finetune",
    ),
)
BY_NAME = {family.name: family for family in FAMILIES}


def label(variant: str, family: str = "") -> str:
    """A person's name for a variant, among the models of a family."""
    if variant == UNCONTROLLED and family in WITH_CONTROL:
        return UNCONTROLLED_LABEL
    return LABELS.get(variant, variant.rpartition("/")[2].replace("_", " "))


def shows(family: str, metric: str) -> bool:
    """Whether a family's tables have a metric: who is given no map need not follow one."""
    return family in WITH_CONTROL or not CATALOG[metric].follows_maps


def family_of(variant: str) -> Family | None:
    """The family of a student; None for the teacher's own and for unknown ones."""
    return BY_NAME.get(variant.partition("/")[0])


def in_order(variants: list[str]) -> list[str]:
    """Teacher first, then as in `LABELS`, then others by name."""
    order = {name: place for place, name in enumerate(LABELS)}
    return sorted(variants, key=lambda name: (order.get(name, len(order)), name))
