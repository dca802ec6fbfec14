"""Checkpoints are checked before they are used, and a full disk is one line."""

from pathlib import Path

import pytest
from safetensors import SafetensorError

from distillery.core.errors import DistilleryError
from distillery.train import state
from toy import train

NAMES = ["model.safetensors", "optimizer.safetensors", "average.safetensors", "state.json"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train(folder, ema_decay=0.9)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_is_one_line(trained: Path, name: str) -> None:
    (checkpoint,) = trained.glob("step-*")
    file, good = checkpoint / name, (checkpoint / name).read_bytes()
    file.write_bytes(good[:-9] + bytes([good[-9] ^ 1]) + good[-8:])
    with pytest.raises(DistilleryError) as raised:
        train(trained, ema_decay=0.9)
    file.write_bytes(good)
    assert str(raised.value) == (
        f"{file}: damaged, its bytes are not those that were recorded; remove {checkpoint} to "
        "start anew"
    )


def test_a_file_that_is_gone_is_named(trained: Path) -> None:
    (checkpoint,) = trained.glob("step-*")
    for name in (NAMES[1], "sha256.json"):
        good = (checkpoint / name).read_bytes()
        (checkpoint / name).unlink()
        with pytest.raises(DistilleryError, match=f"{name}: "):
            train(trained, ema_decay=0.9)
        (checkpoint / name).write_bytes(good)


def test_a_full_disk_is_one_line_with_the_bytes_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_file(tensors: dict, path: Path) -> None:
        raise SafetensorError("Error while serializing: No space left on device (os error 28)")

    monkeypatch.setattr(state, "save_file", save_file)
    with pytest.raises(DistilleryError) as raised:
        train(tmp_path)
    message = str(raised.value)
    assert "model.safetensors: No space left on device: " in message
    assert " bytes are needed, " in message
    assert ".tmp-" not in message
    assert not list(tmp_path.glob("*step-*"))
