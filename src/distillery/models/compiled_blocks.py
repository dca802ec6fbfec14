"""The blocks that diffusers' networks repeat, compiled while something runs.

In: a function that calls U-Nets or ControlNets of any kind, forward and backward. Out: the same
function, in which every residual and every transformer block is one compiled piece. A U-Net of
Stable Diffusion has 38 of them in 18 sets of shapes, and each set is compiled once. What lies
between them runs as it is, and all of it where the compiler fails. Not here: recording.
"""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D

from distillery.core.runtime import CompileError, Kind, compiling, tell

BLOCKS = {kind: kind.forward for kind in (ResnetBlock2D, BasicTransformerBlock)}
MAX_SHAPES = 128  # of one kind of block, over all that a process runs; torch gives up after 8
T = TypeVar("T")


def with_compiled_blocks(run: Callable[..., T]) -> Callable[..., T]:
    """`run` with compiled blocks; the first call with new shapes compiles.

    Whatever torch's compiler raises comes through.
    """

    def compiled(*arguments, **options) -> T:
        with _compiled_blocks():
            return run(*arguments, **options)

    return compiled


class Compiled:
    """`run` with compiled blocks; as it is from where the compiler fails on, which is said.

    `instead` is the runtime that is left then; `undo` is called before the failed call is repeated.
    """

    def __init__(
        self, run: Callable[..., T], instead: Kind, undo: Callable[[], object] = lambda: None
    ) -> None:
        self._plain, self._instead, self._undo = run, instead, undo
        self._run = with_compiled_blocks(run)

    def __call__(self, *arguments: Any) -> T:
        if self._run is self._plain:
            return self._plain(*arguments)
        _announce()
        try:
            with compiling():
                return self._run(*arguments)
        except CompileError as error:
            tell("compile", f"the model can't be compiled ({error})", self._instead)
        self._run = self._plain
        self._undo()
        return self._plain(*arguments)


@functools.cache
def _announce() -> None:
    print("compiling blocks: minutes on a CPU, one or two on CUDA; once", file=sys.stderr)


@contextlib.contextmanager
def _compiled_blocks() -> Iterator[None]:
    """All blocks of this process, whatever network holds them, the frozen ones of a loss too."""
    before = {kind: kind.forward for kind in BLOCKS}
    with torch._dynamo.config.patch(recompile_limit=MAX_SHAPES):
        try:
            for kind, plain in BLOCKS.items():
                kind.forward = _compiled(plain)
            yield
        finally:
            for kind, forward in before.items():
                kind.forward = forward


@functools.cache
def _compiled(forward: Callable) -> Callable:
    # For each set of shapes: kernels for any size would be slower for all.
    return torch.compile(forward, dynamic=False)
