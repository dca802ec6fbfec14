"""How a device runs the same computation over and over: op by op, compiled, or as a CUDA graph.

In: a kind by name, a device, functions of tensors of fixed shapes. Out: the same functions, faster,
with the results of `eager` up to the last bits. `graph` records every kernel of a function once and
replays them all with one call, so that nothing waits for the host; `compile` makes fewer kernels of
them, and on CUDA replays those. What a device can't do runs eagerly, and one line on standard error
says why. Not here: what is computed.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from distillery.core.errors import reason_of
from distillery.core.trees import mapped, tensors_in

Kind = Literal["eager", "compile", "graph"]
KINDS: tuple[Kind, ...] = ("eager", "compile", "graph")
MatmulPrecision = Literal["highest", "high"]
MemoryFormat = Literal["auto", "contiguous", "channels_last"]
# Images at once up to which channels_last is faster in half precision: on an H100 by 22% at 1 and
# by 14% at 2, slower by 4% at 8 (docs/results/profile/2026-11-26-bench-sd15-h100-fp16.json).
MAX_CHANNELS_LAST_ROWS = 4
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Runtime:
    """As params.yaml says it; `auto` is what was measured to be quicker."""

    kind: Kind = "eager"
    matmul_precision: MatmulPrecision = "highest"
    memory_format: MemoryFormat = "auto"

    def on(self, device: torch.device) -> "Runtime":
        """What of it this device can do; sets the precision of its products in float32."""
        set_matmul_precision(self.matmul_precision, device)
        return dataclasses.replace(self, kind=usable(self.kind, device))

    def lay_out(self, module: nn.Module, num_rows: int) -> None:
        """Put the weights of convolutions into the memory format for so many images at once."""
        place = next(module.parameters())
        is_half = place.dtype in (torch.float16, torch.bfloat16)
        wants = self.memory_format
        if wants == "auto" and place.is_cuda and is_half and num_rows <= MAX_CHANNELS_LAST_ROWS:
            wants = "channels_last"
        if wants == "channels_last":
            module.to(memory_format=torch.channels_last)


EAGER = Runtime()
_MANNER = {"eager": "eagerly", "graph": "as graph", "compile": "compiled, not recorded"}


def usable(kind: Kind, device: torch.device) -> Kind:
    """`kind`, or what this device has instead, which is said."""
    why = None
    if kind == "graph" and device.type != "cuda":
        why = f"CUDA graphs need a CUDA device, and this is {device.type}"
    if kind == "compile":
        why = _why_not_compiled(device)
    return kind if why is None else tell(kind, why, uncompiled(device))


def uncompiled(device: torch.device) -> Kind:
    """What runs where nothing compiles: on CUDA a step is recorded all the same."""
    return "graph" if device.type == "cuda" else "eager"


def records(kind: Kind, device: torch.device) -> bool:
    """Whether what runs in this runtime on this device is recorded and replayed."""
    return kind != "eager" and device.type == "cuda"


def tell(kind: Kind, why: str, instead: Kind = "eager") -> Kind:
    """The one line about a runtime that is not to be had; returns what runs instead."""
    print(f"runtime {kind}: {why}; running {_MANNER[instead]}", file=sys.stderr)
    return instead


def _why_not_compiled(device: torch.device) -> str | None:
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "compiling for CUDA needs Triton, which is not installed"
    if device.type != "cpu":
        return f"nothing compiles for the device {device.type}"
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "there is no C++ compiler; install g++"
    return None


def set_matmul_precision(precision: MatmulPrecision, device: torch.device) -> None:
    """`high` lets a CUDA device round operands of float32 products to TF32, 10 bits of mantissa."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = precision == "high"


class Graphs(Protocol):
    """What records: `CudaGraphs`, or its stand-in of tests."""

    def warm_up(self, run: Callable[[], T]) -> T:
        """Run it op by op, where recording will take place."""
        ...

    def record(self, run: Callable[[], T]) -> tuple[Callable[[], None], T]:
        """Record it without running; what replays it, and where its results will lie."""
        ...


class CudaGraphs:
    """CUDA's own; all graphs of one object share memory, so they are replayed one after another."""

    def __init__(self) -> None:
        self._stream, self._pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()

    def warm_up(self, run: Callable[[], T]) -> T:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            output = run()
        torch.cuda.current_stream().wait_stream(self._stream)
        return output

    def record(self, run: Callable[[], T]) -> tuple[Callable[[], None], T]:
        graph = torch.cuda.CUDAGraph()
        # thread_local: the thread that pins the next batch may allocate meanwhile.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            output = run()
        return graph.replay, output


class Captured:
    """A function of tensors of fixed shapes; after `num_warm_up` calls a recorded graph.

    Those first calls are real ones, op by op: what is made once is made there (an optimiser's
    state, workspaces, kernels). From then on: copy in, replay, read out. What is returned is the
    graph's own memory, which the next call overwrites. `undo` is called when recording fails.
    """

    def __init__(
        self,
        run: Callable[..., Any],
        graphs: Graphs,
        num_warm_up: int = 1,
        kind: Kind = "graph",
        undo: Callable[[], object] = lambda: None,
    ) -> None:
        self._run, self._graphs, self._kind, self._undo = run, graphs, kind, undo
        self._num_left, self.gave_up = num_warm_up, False
        self._inputs: list[Tensor] = []
        self._output: Any = None
        self._replay: Callable[[], None] | None = None

    def __call__(self, *inputs: Any) -> Any:
        if self.gave_up:
            return self._run(*inputs)
        if self._num_left:
            self._num_left -= 1
            return self._graphs.warm_up(lambda: self._run(*inputs))
        if self._replay is None and not self._record(inputs):
            return self._run(*inputs)
        for static, given in zip(self._inputs, tensors_in(inputs), strict=True):
            static.copy_(given, non_blocking=True)
        self._replay()
        return self._output

    def _record(self, inputs: tuple) -> bool:
        static = mapped(inputs, torch.clone)
        try:
            self._replay, self._output = self._graphs.record(lambda: self._run(*static))
        except RuntimeError as error:  # CUDA refuses what has to wait for the device
            # Ending the recording fails as well, and says less than what it failed for.
            cause = error.__context__ if isinstance(error.__context__, Exception) else error
            instead: Kind = "compile" if self._kind == "compile" else "eager"
            tell(self._kind, f"the step can't be recorded ({reason_of(cause)})", instead)
            self.gave_up = True
            self._undo()
            return False
        self._inputs = tensors_in(static)
        return True


class Captures:
    """Runs a function, recorded once for every set of shapes that its tensors have."""

    def __init__(self, run: Callable[..., Any], graphs: Graphs, **options: Any) -> None:
        self._make = lambda: Captured(run, graphs, **options)
        self._captured: dict[tuple, Captured] = {}

    def __call__(self, *inputs: Any) -> Any:
        key = tuple((tuple(t.shape), t.dtype) for t in tensors_in(inputs))
        if key not in self._captured:
            self._captured[key] = self._make()
        return self._captured[key](*inputs)

    @property
    def gave_up(self) -> bool:
        """Whether something of it could not be recorded and runs eagerly."""
        return any(one.gave_up for one in self._captured.values())


def captured(
    run: Callable[..., Any],
    kind: Kind,
    num_warm_up: int = 1,
    undo: Callable[[], object] = lambda: None,
) -> Captures:
    """`run`, replayed on the current CUDA device; `kind` is what messages call it."""
    return Captures(run, CudaGraphs(), num_warm_up=num_warm_up, kind=kind, undo=undo)


class CompileError(Exception):
    """What the compiler said, in one line."""


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Raises CompileError where torch.compile fails."""
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        raise CompileError(reason_of(error)) from error
