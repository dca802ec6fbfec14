"""Starting values of a stack of convolutions from the inputs that it will see.

In: convolutions with SiLU between, a batch. Out: the same, rescaled in place.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


@torch.no_grad()
def normalise_convolutions(convolutions: Sequence[nn.Conv2d], inputs: Tensor) -> None:
    """Give each convolution zero bias and outputs of unit variance on `inputs` [n, C, H, W].

    Layer-sequential unit-variance initialisation (Mishkin and Matas 2016, arXiv 1511.06422).
    """
    values = inputs
    for convolution in convolutions:
        convolution.bias.zero_()
        convolution.weight /= convolution(values).std()
        values = functional.silu(convolution(values))
