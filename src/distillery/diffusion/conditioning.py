"""What a network is told beside the noisy latents, and the operations that batches need of it.

In and out: `Conditioning`, tensors by name, one row per sample: `text` are the text encoder's
embeddings [n, length, width], `scale` the embedding of a guidance scale [n, width], `negative` what
a negative prompt's embedding differs by from the empty one's [n, length, width]. Not here: how
diffusers calls them (`denoise`), condition maps.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

TEXT = "text"
SCALE = "scale"
NEGATIVE = "negative"
Conditioning = Mapping[str, Tensor]


def repeated(single: Conditioning, like: Conditioning) -> dict[str, Tensor]:
    """The one row of `single` for every row of `like`, in its dtype and on its device."""
    return {name: single[name].to(rows).expand_as(rows) for name, rows in like.items()}


def stacked(first: Conditioning, second: Conditioning) -> dict[str, Tensor]:
    """The rows of `first`, then those of `second`."""
    return {name: torch.cat([first[name], second[name]]) for name in first}


def chosen(kept: Tensor, first: Conditioning, second: Conditioning) -> dict[str, Tensor]:
    """Row by row that of `first` where `kept`, bool [n], and that of `second` elsewhere."""

    def choose(mine: Tensor, theirs: Tensor) -> Tensor:
        rows = kept.to(mine.device).view(-1, *[1] * (mine.dim() - 1))
        return torch.where(rows, mine, theirs)

    return {name: choose(mine, second[name]) for name, mine in first.items()}
