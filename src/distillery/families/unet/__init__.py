"""Stage I of ELR-Diffusion: low-rank U-Nets that learn from the teacher's cached outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distillery.families.base import Family, Prediction
from distillery.families.facts import Facts, Shown, Texts
from distillery.families.snippets import program


class _Unet(Family):
    def load(self, name, folders, device, dtype):
        from distillery.families.load import Student
        from distillery.models.load import load_unet

        return Student(load_unet(folders.weights, device, dtype))

    def profiled(self, folders, teacher):
        from distillery.cost.workload import Profiled, unet_alone
        from distillery.models.load import load_unet

        unet = load_unet(folders.weights, teacher.device).requires_grad_(True)
        return Profiled(unet, {"unet": unet}, unet_alone(unet), list(unet.parameters()))


def _size(name: str, variant: Mapping[str, Any], section: Mapping[str, Any], known: Any) -> Any:
    from distillery.cost import accounting

    unet = known.backbone(f"unet/{name}").requires_grad_(True)
    return known.sized(f"unet/{name}", accounting.UNET, {"unet": unet})


def _snippet(model: str, settings: Mapping[str, Any]) -> str:
    return program([f'unet = load_unet(Path("models/{model}"))'], "unet=unet")


UNET = _Unet(
    name="unet",
    stage="distill_unet",
    variants_key="distill_unet.variants",
    views=("cond",),
    prediction=Prediction(),
    profile_rows=("unet_",),
)
FACTS = Facts(
    sizes=_size,
    shown=Shown(
        teacher="teacher/guided",
        students=("unet/elr",),
        qualities=("reader_shape", "kid", "prediction_distance"),
        costs=("parameters_unet", "latency_s"),
        tables=("elr_table1",),
        beside=("teacher/unguided", "teacher/guided_offset"),
        strip=("teacher/guided",),
        hero=("teacher/guided", "unet/elr", "unet/svd_only", "unet/decomposed_no_kd",
              "unet/standard_no_kd"),
    ),
    texts=Texts(
        "A low-rank U-Net",
        "Every large layer of the U-Net becomes a product of two thin ones, started from its SVD "
        "and distilled from the teacher's cached outputs.",
        "U-Net",
        {
            "elr": "ELR Stage I",
            "svd_only": "SVD only, untrained",
            "svd_no_kd": "SVD, no distillation",
            "random_kd": "Random start, distilled",
            "decomposed_no_kd": "Low-rank from scratch",
            "standard_no_kd": "Dense from scratch",
            "elr_balanced": "ELR, balanced factors",
            "elr_data_aware": "ELR, data-aware SVD",
            "elr_planned": "ELR, planned ranks",
            "planned": "Planned for latency",
            "by_parameters": "Planned for parameters",
            "removal": "Blocks removed",
            "random_removal": "Random blocks removed",
        },
        _snippet,
    ),
)  # fmt: skip
