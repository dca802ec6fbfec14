"""Encode condition maps once per image, not once per sampling step.

In: a ControlNet or a control adapter. Out: for a while, its map encoder answers the tensor it was
given last without computing, or what it is told to. A sampler gives the same maps at every step,
and they are as large as the image: encoding them is much of what a small student computes.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from distillery.core.errors import DistilleryError

_ENCODERS = ("controlnet_cond_embedding", "extractor")  # a ControlNet's, a control adapter's


@contextlib.contextmanager
def maps_encoded_once(controlnet: nn.Module) -> Iterator[None]:
    """While open, the same tensor of maps, unchanged, gets the same features, without computing.

    Tensors are told apart by identity and version, so `controlnet` must be given one object at all
    steps, as diffusers' pipelines do. Features belong to no graph: for sampling, not for training.
    Raises DistilleryError for a model without an encoder of maps; give a MultiControlNetModel's own
    ControlNets one by one.
    """
    encoder = _encoder(controlnet)
    compute = encoder.forward
    known: tuple[Tensor, int | None, Any] | None = None

    @torch.no_grad()
    def forward(maps: Tensor) -> Any:
        nonlocal known
        version = None if maps.is_inference() else maps._version  # inference tensors have none
        if known is None or known[0] is not maps or known[1] != version:
            known = (maps, version, compute(maps))
        return known[2]

    with _replaced(encoder, forward):
        yield


@torch.no_grad()
def encoded_maps(controlnet: nn.Module, maps: Tensor) -> Any:
    """The features of maps [n, C, H, W]: a tensor, or a list of them."""
    return _encoder(controlnet)(maps)


@contextlib.contextmanager
def answering(controlnet: nn.Module, features: Any) -> Iterator[None]:
    """While open, the encoder answers `features` to whatever maps."""
    with _replaced(_encoder(controlnet), lambda maps: features):
        yield


def _encoder(controlnet: nn.Module) -> nn.Module:
    encoder = next((getattr(controlnet, n) for n in _ENCODERS if hasattr(controlnet, n)), None)
    if encoder is None:
        raise DistilleryError(
            f"{type(controlnet).__name__} has no encoder of condition maps; give a ControlNet or a "
            "control adapter"
        )
    return encoder


@contextlib.contextmanager
def _replaced(encoder: nn.Module, forward: Callable[[Tensor], Any]) -> Iterator[None]:
    own = vars(encoder).get("forward")  # a hook's, of offloading
    encoder.forward = forward
    try:
        yield
    finally:
        del encoder.forward
        if own is not None:
            encoder.forward = own
