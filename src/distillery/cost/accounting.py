"""How many parameters every model of the papers has, by what exactly is counted.

In: an architecture on the meta device (by name, or from the config files of a teacher's folder),
or a params file's students. Out: one `Entry` per model with its scope, six columns, the figure its
paper prints and what to know about it. No weights are read and nothing is allocated.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from distillery.core.errors import DistilleryError
from distillery.cost.counts import count_parameters
from distillery.models.architectures import ARCHITECTURES, build_meta
from distillery.models.control_adapter.adapter import UNI_CONTROLNET_KINDS, ControlAdapter
from distillery.models.layers import layer_shapes
from distillery.models.lowrank.ranks import align, plan_ranks
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel
from distillery.models.skeleton import on_meta
from distillery.models.student_controlnet.model import PRESETS, StudentControlNet

Parts = dict[str, nn.Module]
ALIGNED = 8  # what ranks of the presets of Stable Diffusion are multiples of
PAPER_KRONECKER = {"n": 4, "r": 8}
KEEP_DENSE_IN_ADAPTER = ("conv_in", "controlnet_*")
PIPELINE, WITH_ADAPTER = "U-Net + text encoder + VAE", "U-Net + control adapter"
EVERYTHING = "U-Net + control adapter + text encoder + VAE"
CONTROLNET, UNET = "ControlNet alone", "U-Net alone"


@dataclass(frozen=True)
class Entry:
    """One model: `counts` are the columns of `counts.count_parameters`; `printed` the paper's."""

    name: str
    architecture: str
    scope: str
    counts: Mapping[str, int]
    printed: str = ""
    note: str = ""


@dataclass(frozen=True)
class _Model:
    """How a paper's model is built from a pipeline's parts, and what its paper says."""

    architecture: str
    scope: str
    build: Callable[[Mapping[str, nn.Module]], Parts]
    printed: str = ""
    note: str = ""


def load_architecture(preset: str) -> Parts:
    """`unet`, `text_encoder`, `vae` on meta of `sd15`, `sd21`, `scenes` or a diffusers folder.

    A folder with ControlNets (`controlnet_*/`) gives the first one as `controlnet`.
    Raises DistilleryError for a name that is none of these, or a folder without the config files.
    """
    if preset in ARCHITECTURES:
        return build_meta(preset)
    folder = Path("data/scenes-sd" if preset == "scenes" else preset)
    kinds = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}
    for name in (*kinds, "text_encoder"):
        if not (folder / name / "config.json").is_file():
            known = ", ".join([*ARCHITECTURES, "scenes"])
            raise DistilleryError(
                f"{folder / name / 'config.json'}: not found; give {known} or a diffusers folder"
                f"{_params_hint(preset)}"
            )
    text = CLIPTextConfig.from_pretrained(folder / "text_encoder")
    for path in sorted(folder.glob("controlnet_*/config.json"))[:1]:
        kinds[path.parent.name] = ControlNetModel
    with on_meta():
        parts = {
            name: kind.from_config(kind.load_config(folder / name)) for name, kind in kinds.items()
        }
        parts = {name.partition("_")[0]: module for name, module in parts.items()}
        return {**parts, "text_encoder": CLIPTextModel(text)}


def _params_hint(preset: str) -> str:
    """For who gives a params file, or the name of a preset, where an architecture is asked for."""
    if Path(preset).suffix in (".yaml", ".yml"):
        return "; params files are for distillery params, ranks and latency"
    if (file := Path("presets", f"{preset}.yaml")).is_file():
        return f"; distillery params, ranks and latency take the preset's file, {file}"
    return ""


def low_rank_unet(unet: nn.Module, multiple_of: int = 1) -> LowRankUNet2DConditionModel:
    """The paper's Stage I student: a third of every rank, conv_in and conv_out dense.

    Ranks are rounded down to multiples of `multiple_of`; half-precision kernels want `ALIGNED`.
    """
    ranks = align(plan_ranks(unet), layer_shapes(unet), multiple_of)
    return LowRankUNet2DConditionModel.empty(unet.config, ranks)


def low_rank_adapter(unet: nn.Module, **settings) -> ControlAdapter:
    """An adapter at a third of every rank throughout, but its input and zero convolutions."""
    dense = ControlAdapter.empty(unet.config, **settings)
    ranks = plan_ranks(dense, keep_dense=KEEP_DENSE_IN_ADAPTER)
    return ControlAdapter.empty(unet.config, ranks=ranks, **settings)


def teacher_controlnet(parts: Mapping[str, nn.Module]) -> ControlNetModel:
    """The parts' own ControlNet, or the one that goes with their U-Net (Zhang et al. 2023)."""
    if "controlnet" in parts:
        return parts["controlnet"]
    with on_meta():
        return ControlNetModel.from_unet(parts["unet"], load_weights_from_unet=False)


def paper_entries(preset: str, parts: Mapping[str, nn.Module]) -> list[Entry]:
    """Every model the papers name at its paper's size, and on `parts` where those differ."""
    known = {name: build_meta(name) for name in ARCHITECTURES} if preset in ARCHITECTURES else {}
    entries = []
    for name, model in _MODELS.items():
        if model.architecture in known:
            source = known[model.architecture]
            entries.append(_entry(name, model.architecture, model, source, paper=True))
        if model.architecture != preset:
            entries.append(_entry(name, preset, model, parts, paper=False))
    return entries


def entry_of(name: str, architecture: str, scope: str, parts: Mapping[str, nn.Module]) -> Entry:
    """Counts of parts whose `requires_grad` says what is trained; the optimiser gets just that."""
    trained = [p for part in parts.values() for p in part.parameters() if p.requires_grad]
    return Entry(name, architecture, scope, count_parameters(parts, trained))


def _entry(
    name: str, architecture: str, model: _Model, source: Mapping[str, nn.Module], *, paper: bool
) -> Entry:
    frozen = {part: module.requires_grad_(False) for part, module in source.items()}
    entry = entry_of(name, architecture, model.scope, model.build(frozen))
    printed, note = (model.printed, model.note) if paper else ("", "")
    return Entry(name, architecture, model.scope, entry.counts, printed, note)


def _rest(parts: Mapping[str, nn.Module]) -> Parts:
    return {name: parts[name] for name in ("text_encoder", "vae")}


def _pipeline(parts: Mapping[str, nn.Module]) -> Parts:
    return {"unet": parts["unet"], **_rest(parts)}


def _stage_one(parts: Mapping[str, nn.Module]) -> Parts:
    return {"unet": low_rank_unet(parts["unet"]), **_rest(parts)}


def _uni_controlnet(parts: Mapping[str, nn.Module]) -> Parts:
    adapter = ControlAdapter.empty(parts["unet"].config, conditions=UNI_CONTROLNET_KINDS)
    return {"unet": parts["unet"], "adapter": adapter}


def _elr(parts: Mapping[str, nn.Module]) -> Parts:
    adapter = low_rank_adapter(parts["unet"], conditions=UNI_CONTROLNET_KINDS)
    return {"unet": low_rank_unet(parts["unet"]).requires_grad_(False), "adapter": adapter}


def _kronecker(parts: Mapping[str, nn.Module]) -> Parts:
    adapter = ControlAdapter.empty(parts["unet"].config, kronecker=PAPER_KRONECKER)
    return {"unet": parts["unet"], "adapter": adapter}


def _trained_alone(of_kronecker: bool) -> Callable[[Mapping[str, nn.Module]], Parts]:
    """Only the trained tensors of the Kronecker adapter: its factors, or all the others."""

    def build(parts: Mapping[str, nn.Module]) -> Parts:
        adapter, kept = _kronecker(parts)["adapter"], nn.ParameterList()
        for name, parameter in adapter.named_parameters():
            if parameter.requires_grad and (".kronecker_" in name) == of_kronecker:
                kept.append(parameter)
        return {"adapter": kept}

    return build


def _student(preset: str) -> Callable[[Mapping[str, nn.Module]], Parts]:
    def build(parts: Mapping[str, nn.Module]) -> Parts:
        teacher = teacher_controlnet(parts)
        return {"controlnet": StudentControlNet.empty(teacher, PRESETS[preset])}

    return build


_MODELS = {
    "stable_diffusion": _Model("sd21", PIPELINE, _pipeline, "1290M"),
    "elr_stage_1": _Model("sd21", PIPELINE, _stage_one, "790M"),
    "uni_controlnet": _Model(
        "sd15", WITH_ADAPTER, _uni_controlnet, "1271M",
        "without text encoder and VAE; seven conditions, 21 hint channels",
    ),
    "uni_controlnet_pipeline": _Model(
        "sd15", EVERYTHING, lambda p: {**_uni_controlnet(p), **_rest(p)}, "1478M",
        "the same model as the printed 1271M, with text encoder and VAE",
    ),
    "elr_table_2": _Model(
        "sd15", EVERYTHING, lambda p: {**_elr(p), **_rest(p)}, "750M",
        "with text encoder and VAE, which the 1271M beside it leaves out: 1271 -> 750 compares "
        "different scopes; like for like 1271 -> 543, or 1478 -> 750",
    ),
    "elr_table_3": _Model(
        "sd15", WITH_ADAPTER, _elr, "536M",
        "without text encoder and VAE; 535-543M by how ranks are rounded; 58% = 1 - 536/1271",
    ),
    "elr_dense": _Model(
        "sd15", WITH_ADAPTER, _kronecker, "",
        "what the Kronecker update (n 4, r 8) leaves to the optimiser; three conditions",
    ),
    "elr_kronecker_factors": _Model(
        "sd15", "trained Kronecker factors alone", _trained_alone(True), "",
        "the update of the copied encoder: A, u and v",
    ),
    "elr_injection": _Model(
        "sd15", "trained extractor, FDN and zero convolutions alone", _trained_alone(False), "",
        "trained in full beside the Kronecker factors",
    ),
    "controlnet_teacher": _Model(
        "sd21", CONTROLNET, lambda p: {"controlnet": teacher_controlnet(p)}, "",
        "beside a frozen U-Net, which no ControlNet row counts",
    ),
    "controlnet_reduced_channel": _Model("sd21", CONTROLNET, _student("reduced_channel")),
    "controlnet_reduced_layer": _Model("sd21", CONTROLNET, _student("reduced_layer")),
    "controlnet_modulated": _Model("sd21", CONTROLNET, _student("modulated")),
    "controlnet_loha": _Model("sd21", CONTROLNET, _student("loha")),
    "controlnet_distilled": _Model(
        "sd21", CONTROLNET, _student("distilled"), "", "this project's own; no paper has it"
    ),
}  # fmt: skip
