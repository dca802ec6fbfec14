"""Names of the original code for the CLIP text encoder of Stable Diffusion 1.x and 2.x.

In: the state dict of transformers' `CLIPTextModel`. Out: the same tensors as a checkpoint of that
version holds them: 1.x keeps transformers' own layout, 2.x that of OpenCLIP, in which query, key
and value are one matrix (Ilharco et al. 2021). OpenCLIP's GELU tells 2.x.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from distillery.core.errors import DistilleryError

_PREFIX_1 = "cond_stage_model.transformer.text_model."
_PREFIX_2 = "cond_stage_model.model."
_OPEN_CLIP = {
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_IN_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_QUERY = "self_attn.q_proj."


def is_open_clip(config: Mapping) -> bool:
    """Whether a text encoder's config is that of Stable Diffusion 2.x."""
    return config["hidden_act"] == "gelu"


def original_text_encoder(state: Mapping[str, Tensor], open_clip: bool) -> dict[str, Tensor]:
    """The text encoder's tensors under the names of 1.x, or of 2.x if `open_clip`.

    Raises DistilleryError for a layer that is not CLIP's.
    """
    plain = {key.removeprefix("text_model."): tensor for key, tensor in state.items()}
    plain.pop("embeddings.position_ids", None)
    if not open_clip:
        return {f"{_PREFIX_1}{key}": tensor for key, tensor in plain.items()}
    renamed = {}
    for key, tensor in plain.items():
        if key.startswith("encoder.layers."):
            renamed |= _layer(key, plain)
        elif key in _OPEN_CLIP:
            renamed[f"{_PREFIX_2}{_OPEN_CLIP[key]}"] = tensor
        else:
            raise _unknown(key)
    return renamed


def _layer(key: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One tensor of a layer; its query brings key and value along."""
    number, _, rest = key.removeprefix("encoder.layers.").partition(".")
    block = f"{_PREFIX_2}transformer.resblocks.{number}"
    if rest.startswith(_QUERY):
        kind = rest.removeprefix(_QUERY)
        parts = [state[key.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
        return {f"{block}.attn.in_proj_{kind}": torch.cat(parts)}
    if rest.startswith(("self_attn.k_proj.", "self_attn.v_proj.")):
        return {}
    layer, _, kind = rest.rpartition(".")
    if layer not in _IN_LAYER:
        raise _unknown(key)
    return {f"{block}.{_IN_LAYER[layer]}.{kind}": state[key]}


def _unknown(key: str) -> DistilleryError:
    return DistilleryError(f"text_encoder.{key}: not a layer of CLIP; export --to diffusers")
