"""What a loss needs to know of the whole batch where several processes share it.

In: what is so of this process's samples. Out: what is so of all, without gradients; in a single
process, and outside training (only the main process validates), the same. Not here: how gradients
are exchanged, which is `accelerate`'s.
"""

import torch
import torch.distributed
from torch import Tensor


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean of equally shaped `values` over all processes, each of which must call this."""
    if not _are_several():
        return values
    total = values.detach().clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()


def in_any_process(flag: bool, device: torch.device) -> bool:
    """Whether `flag` is set in any process, each of which must call this."""
    if not _are_several():
        return flag
    return bool(mean_over_processes(torch.tensor(float(flag), device=device)))


def _are_several() -> bool:
    shared = torch.distributed.is_available() and torch.distributed.is_initialized()
    return shared and torch.is_grad_enabled()
