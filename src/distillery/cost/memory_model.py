"""Device memory of one training iteration, or one evaluation, predicted without running it.

In: a function that computes the loss, the parameters it trains, the tensors that lie in memory;
all may be on the meta device, where nothing is computed or allocated. Out: a `Memory`, in bytes, of
the moment of the peak. How: the iteration really runs, operator by operator, and every storage that
an operator makes is followed from its allocation to its release.

Not modelled: workspaces of convolution libraries, the allocator's rounding and fragmentation, and
the device's own context. Measured memory is `cost`.
"""

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from distillery.cost.mixed import mixed
from distillery.cost.shapes import run_operator

ADAM_STATES = 2
STATE_BYTES = 4  # a number of Adam's state, whatever the weight's format
# Float32 copies of one weight that is rounded at random: gradient, mean's scale, values, noise.
ROUNDING_COPIES = 4


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of an iteration, by what they hold.

    `weights`: parameters and buffers of what trains and what it runs through; `teacher`: those only
    the teacher needs; `gradients`, `optimiser`: as they are at the peak (Adam's moments exist from
    the second iteration on); `activations`: everything else. `saved` is part of no sum: what the
    forward pass leaves behind for the backward pass.
    """

    weights: int
    gradients: int
    optimiser: int
    teacher: int
    activations: int
    saved: int

    @property
    def peak(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimiser + self.teacher + self.activations

    def as_dict(self) -> dict[str, int]:
        """The fields and `peak`, for JSON."""
        return {**asdict(self), "peak": self.peak}


class Allocations(TorchDispatchMode):
    """Follows storages made while it is active: bytes alive now, and at the peak.

    `known` tensors are there before and do not count. Gradients of `trained` are told apart once
    autograd has stored them.
    """

    def __init__(self, known: Iterable[Tensor] = (), trained: Iterable[nn.Parameter] = ()) -> None:
        super().__init__()
        self.live_bytes = self.peak_bytes = self.peak_gradient_bytes = 0
        self._trained = list(trained)
        self._known = {_storage_id(tensor) for tensor in known}
        self._gradients: dict[int, int] = {}
        self._hooks: list = []

    def __enter__(self) -> "Allocations":
        hook = self._note_gradient
        self._hooks = [p.register_post_accumulate_grad_hook(hook) for p in self._trained]
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()
        super().__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = run_operator(func, args, kwargs)
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        return output

    def _add(self, tensor: Tensor) -> None:
        key = _storage_id(tensor)
        if key in self._known:
            return
        storage = tensor.untyped_storage()
        self._known.add(key)
        self.live_bytes += storage.nbytes()
        weakref.finalize(storage, self._release, key, storage.nbytes())
        if self.live_bytes > self.peak_bytes:
            self.peak_bytes = self.live_bytes
            self.peak_gradient_bytes = sum(self._gradients.values())

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live_bytes -= size

    def _note_gradient(self, parameter: nn.Parameter) -> None:
        self._gradients[id(parameter)] = parameter.grad.untyped_storage().nbytes()


def predict_step(
    loss: Callable[[], Tensor],
    trained: Sequence[nn.Parameter],
    *,
    held: Iterable[nn.Module],
    teacher: Iterable[nn.Module] = (),
    dtype: torch.dtype = torch.float32,
) -> Memory:
    """Peak memory of forward, backward and AdamW on `trained`, from the second iteration on.

    `dtype` other than float32: in mixed precision. `held` and `teacher` are the modules in memory;
    a tensor in both counts as `held`. Gradients are set to None before and after. Adam works in
    place (`fused`), without copies, but on weights in bfloat16, which are updated one by one in
    float32 (`train.rounding`).
    Takes about a second for Stable Diffusion on the meta device.
    """
    held_tensors, teacher_tensors = _tensors(held), _tensors(teacher)
    weights = _num_bytes(held_tensors)
    everything = _num_bytes([*held_tensors, *teacher_tensors])
    _forget_gradients(trained)
    with (
        fused_attention(),
        mixed(dtype),
        Allocations([*held_tensors, *teacher_tensors], trained) as during,
    ):
        value = loss()
        saved = during.live_bytes
        value.backward()
        del value
    _forget_gradients(trained)
    all_gradients = sum(p.numel() * p.element_size() for p in trained)
    activations = during.peak_bytes - during.peak_gradient_bytes
    copies = _rounding_bytes(trained)
    in_update = during.peak_bytes < all_gradients + copies
    return Memory(
        weights=weights,
        gradients=all_gradients if in_update else during.peak_gradient_bytes,
        optimiser=ADAM_STATES * STATE_BYTES * sum(p.numel() for p in trained),
        teacher=everything - weights,
        activations=copies if in_update else activations,
        saved=saved,
    )


def _rounding_bytes(trained: Sequence[nn.Parameter]) -> int:
    """What the update of the largest weight in bfloat16 takes beside it."""
    largest = max((p.numel() for p in trained if p.dtype == torch.bfloat16), default=0)
    return ROUNDING_COPIES * STATE_BYTES * largest


@torch.no_grad()
def predict_evaluation(run: Callable[[], object], *, held: Iterable[nn.Module]) -> Memory:
    """Peak memory of one evaluation without gradients; the modules in `held` lie in memory.

    What `run` was given before does not count. `saved` and everything that trains is 0.
    """
    tensors = _tensors(held)
    with fused_attention(), Allocations(tensors) as during:
        run()
    return Memory(
        weights=_num_bytes(tensors), gradients=0, optimiser=0, teacher=0,
        activations=during.peak_bytes, saved=0,
    )  # fmt: skip


@contextlib.contextmanager
def fused_attention() -> Iterator[None]:
    """On the meta device attention keeps what the fused kernels keep, not its n x n matrix.

    There torch itself falls back to the plain form, which no device runs for these models.
    """
    plain = functional.scaled_dot_product_attention
    wrapped = partial(_attention, plain)
    with mock.patch.object(functional, "scaled_dot_product_attention", wrapped):
        yield


def _attention(plain: Callable, query: Tensor, key: Tensor, value: Tensor, *args, **kwargs):
    mask = args[0] if args else kwargs.get("attn_mask")
    if query.device.type != "meta" or mask is not None:
        return plain(query, key, value, *args, **kwargs)
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return fused(query, key, value)[0]


def _tensors(modules: Iterable[nn.Module]) -> list[Tensor]:
    return [t for module in modules for t in (*module.parameters(), *module.buffers())]


def _num_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of distinct storages."""
    storages = {_storage_id(t): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def _storage_id(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _forget_gradients(parameters: Iterable[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None
