"""A folder ready to upload to the Hugging Face hub.

In: models by subfolder and what their card says. Out: weights, a card, and for students that plain
diffusers has no class for the module that `AutoModel.from_pretrained(..., trust_remote_code=True)`
loads them with, beside diffusers and torch nothing else. Not here: the card's text (`hub_card`),
the upload (`upload`).
"""

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path

from diffusers import ControlNetModel, ModelMixin, UNet2DConditionModel

from distillery.core.artifacts import read_json, write_json
from distillery.core.errors import DistilleryError
from distillery.core.publishing import publish
from distillery.export import remote
from distillery.export.controlnet_names import plain_controlnet, why_not_plain
from distillery.export.hub_card import HubCard, card_text
from distillery.export.remote import low_rank_unet, student_controlnet
from distillery.models.control_adapter import ControlAdapter
from distillery.models.export import save_model
from distillery.models.gate import same_controlnet, same_unet
from distillery.models.lora.files import load_lora, save_lora
from distillery.models.lora.layers import ADAPTER, lora_layers
from distillery.models.lowrank import LowRankUNet2DConditionModel
from distillery.models.student_controlnet import StudentControlNet

CARD = "README.md"
ROOT = "."
_REMOTE_CLASSES = {
    LowRankUNet2DConditionModel: low_rank_unet.LowRankUNet2DConditionModel,
    StudentControlNet: student_controlnet.StudentControlNet,
}


def write(models: Mapping[str, ModelMixin], out: Path, card: HubCard) -> Path:
    """The folder `out` with each model in its subfolder, `.` for the only one, and the card.

    A U-Net that carries a LoRA is written as the LoRA file alone. Raises DistilleryError for a
    control adapter and where a model, loaded again as its users will, answers otherwise.
    """
    models = {place: _simplest(model) for place, model in models.items()}
    with publish(out) as partial:
        partial.mkdir()
        for place, model in models.items():
            _write_model(model, partial / place)
        (partial / CARD).write_text(card_text(models, card), encoding="utf-8")
    return out


def _simplest(model: ModelMixin) -> ModelMixin:
    """A plain ControlNet where a student is one."""
    if isinstance(model, ControlAdapter):
        raise DistilleryError(
            "a control adapter's encoder has norms of its own, which no module travels with yet; "
            "share its folder as it is and load it with ControlAdapter.from_pretrained"
        )
    is_student = isinstance(model, StudentControlNet)
    return plain_controlnet(model) if is_student and not why_not_plain(model.config) else model


def _write_model(model: ModelMixin, folder: Path) -> None:
    if lora_layers(model):
        save_lora(model, folder)
        bare = copy.deepcopy(model)
        bare.delete_adapters(ADAPTER)
        same_unet(model, load_lora(bare, folder))
        return
    save_model(model, folder)
    kind = _REMOTE_CLASSES.get(type(model))
    if kind is not None:
        module = kind.__module__.rpartition(".")[2]
        shutil.copy(Path(remote.__file__).parent / f"{module}.py", folder)
        config = read_json(folder / "config.json")
        config["auto_map"] = {"AutoModel": f"{module}.{kind.__name__}"}
        write_json(folder / "config.json", config)
    _require_same(model, (kind or type(model)).from_pretrained(folder))


def _require_same(model: ModelMixin, again: ModelMixin) -> None:
    if isinstance(model, UNet2DConditionModel):
        same_unet(model, again)
    elif isinstance(model, ControlNetModel):
        same_controlnet(model, again)
    else:
        raise DistilleryError(f"a {type(model).__name__} is neither a U-Net nor a ControlNet")
