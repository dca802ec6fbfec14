"""Stage II of ELR-Diffusion: control adapters on a frozen U-Net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distillery.data.conditions import KINDS
from distillery.families.base import BACKBONE, Family, Part
from distillery.families.facts import Facts, Shown, Texts
from distillery.families.snippets import EDGES, program, unet_of


class _Control(Family):
    def load(self, name, folders, device, dtype):
        from distillery.families.load import Student, load_backbone
        from distillery.models.load import load_controlnet

        adapter = load_controlnet(folders.weights, device, dtype)
        unet = load_backbone(folders, device, dtype)
        return Student(unet, adapter, tuple(adapter.config.conditions))

    def profiled(self, folders, teacher):
        from distillery.cost.workload import Profiled, with_control
        from distillery.families.load import load_backbone
        from distillery.models.load import load_controlnet

        adapter = load_controlnet(folders.weights, teacher.device, frozen=False)
        unet = load_backbone(folders, teacher.device)
        trained = [p for p in adapter.parameters() if p.requires_grad]
        parts = {"unet": unet, "adapter": adapter}
        run = with_control(unet, adapter)
        return Profiled(unet, parts, run, trained, "evaluation of U-Net and adapter")


def _size(name: str, variant: Mapping[str, Any], section: Mapping[str, Any], known: Any) -> Any:
    from distillery.cost.accounting import WITH_ADAPTER
    from distillery.models.control_adapter.adapter import ControlAdapter
    from distillery.models.control_adapter.encoder import encoder_ranks

    unet = known.backbone(variant["backbone"])
    copied = known.backbone("teacher") if variant["encoder"] == "teacher" else unet
    adapter = ControlAdapter.empty(
        copied.config,
        ranks=encoder_ranks(copied.config.get("ranks")),
        conditions=section["conditions"],
        norm=section["norm"],
        kronecker=section["kronecker"] if variant["update"] == "kronecker" else None,
    )
    return known.sized(f"control/{name}", WITH_ADAPTER, {"unet": unet, "adapter": adapter})


def _snippet(model: str, settings: Mapping[str, Any]) -> str:
    backbone = settings.get("backbone", "teacher")
    made = [f'controlnet = ControlAdapter.from_pretrained("models/{model}")', *unet_of(backbone)]
    named = "controlnet=controlnet" + (", unet=unet" if backbone != "teacher" else "")
    hint = f"image=controlnet.stack({settings['kinds'][0]}=edges)"
    return program(made, named, EDGES, hint)


CONTROL = _Control(
    name="control",
    stage="finetune_control",
    variants_key="finetune_control.variants",
    builds_on=(Part(BACKBONE, "backbone"),),
    takes_maps=True,
    profile_rows=("uni_", "elr"),
)
FACTS = Facts(
    sizes=_size,
    shown=Shown(
        teacher="control/uni_controlnet",
        students=("control/elr", "control/elr_planned", "control/elr_dense"),
        qualities=("edge_f1", "miou", "kid"),
        costs=("parameters_in_optimiser", "train_step_s"),
        tables=("elr_table2", "elr_table3"),
        beside=("teacher/guided", *(f"teacher/control_{kind}" for kind in KINDS)),
        strip=("reference/condition", "reference/real"),
    ),
    texts=Texts(
        "A control adapter on a frozen U-Net",
        "One adapter takes condition maps of several kinds at once. Its low-rank encoder is tuned "
        "by shared Kronecker products, while the backbone stays frozen.",
        "Control adapter",
        {
            "uni_controlnet": "Uni-ControlNet",
            "elr_dense": "ELR adapter, dense U-Net",
            "elr_no_kd": "ELR adapter, U-Net w/o distillation",
            "elr": "ELR adapter",
            "elr_planned": "ELR adapter, planned ranks",
        },
        _snippet,
        compared="Edges are judged on prompts with a Canny map, regions on those with a "
        "segmentation, the sketch CLIP score on those with a sketch; the uncontrolled teacher on "
        "every prompt. Beyond the paper, the scenes presets teach all adapters by the teacher's "
        "ControlNets too.",
    ),
)
