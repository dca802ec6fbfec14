"""A process gets a device of its own, and the launcher that lies is refused."""

import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from distillery.core import device
from distillery.core.errors import DistilleryError


def test_the_cpu_needs_no_claim() -> None:
    assert device.claim_device("cpu") == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_that_is_not_there_is_refused() -> None:
    with pytest.raises(DistilleryError, match="set device: cpu"):
        device.claim_device("cuda")


def test_a_locked_device_is_not_claimed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(device, "_held", [])
    assert device._try_lock("gpu-a")
    assert not device._try_lock("gpu-a")
    assert device._try_lock("gpu-b")
    fcntl.flock(device._held[0], fcntl.LOCK_UN)
    assert device._try_lock("gpu-a")


@pytest.fixture
def kernels() -> Iterator[None]:
    """PyTorch's choice of kernels, put back afterwards."""
    cudnn, deterministic = torch.backends.cudnn, torch.are_deterministic_algorithms_enabled()
    before = (cudnn.deterministic, cudnn.benchmark)
    fill = torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.utils.deterministic.fill_uninitialized_memory = fill
    cudnn.deterministic, cudnn.benchmark = before
    torch.use_deterministic_algorithms(deterministic)


@pytest.mark.usefixtures("kernels")
def test_a_cuda_device_computes_reproducibly(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, environment = [], {"LOCAL_RANK": "1"}
    monkeypatch.setattr("os.environ", environment)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert device.claim_device.__wrapped__("cuda") == torch.device("cuda", 1)
    assert chosen == [1]
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert environment["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_accelerate_launch_on_the_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(DistilleryError, match="use torchrun"):
        device.check_launcher()
    monkeypatch.setenv("WORLD_SIZE", "2")
    device.check_launcher()
