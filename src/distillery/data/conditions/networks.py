"""Networks of `transformers` that draw maps: opened whole, or not at all.

In: a local folder that `save_pretrained` wrote, or a hub id. Out: the processor of its images and
the model, in eval mode. Weights are safetensors, no code of a repository runs. A file that lacks or
is damaged, tensors that lack, and NaN are an error of one line. Not here: what they draw.
"""

from pathlib import Path
from typing import Any

from distillery.core.errors import DistilleryError, reason_of
from distillery.core.weights import require_matched, require_numbers

_FILES = (
    ("config.json",),
    ("preprocessor_config.json", "processor_config.json"),
    ("*.safetensors",),
)


def open_network(kind: Any, place: str, device: str, key: str) -> tuple[Any, Any]:
    """Processor and model of a `transformers` class; `key` of `extract_conditions` names it."""
    from transformers import AutoImageProcessor

    options = {"local_files_only": Path(place).exists(), "trust_remote_code": False}
    try:
        processor = AutoImageProcessor.from_pretrained(place, **options)
        model, info = kind.from_pretrained(
            place, **options, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # of the libraries, for a damaged file
        raise DistilleryError(
            f"extract_conditions.{key}: {place} gives no such transformers model "
            f"({_lacking(Path(place)) or reason_of(error)}); {_remedy(place, key)}"
        ) from None
    require_matched(f"extract_conditions.{key}: {place}", info, may_hold_more=True)
    require_numbers(model.state_dict(), Path(place))
    return processor, model.eval().to(device)


def _remedy(place: str, key: str) -> str:
    if Path(place).exists():
        remedy = "save model and processor there with save_pretrained"
    else:
        remedy = "correct it, or download the model and name its folder"
    return remedy if key.startswith("pose") else f"{remedy}, or set it to builtin"


def _lacking(folder: Path) -> str:
    """The first file that a folder should have and has not."""
    if not folder.is_dir():
        return ""
    lacking = (names for names in _FILES if not any(any(folder.glob(n)) for n in names))
    return next((f"no {names[0]} there" for names in lacking), "")
