from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from distillery.core.errors import DistilleryError
from distillery.metrics.features import load_extractor
from distillery.metrics.lpips_networks import check_range, load_lpips

ALEX = {0: (11, 4, 2), 3: (5, 1, 2), 6: (3, 1, 1), 8: (3, 1, 1), 10: (3, 1, 1)}
VGG_CONVS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
VGG_FEATURES = (2, 7, 14, 21, 28)
SHIFT, SCALE = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])


def _images(seed: int, n: int = 3, side: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def _save(folder: Path, kernels: dict[int, int], widths: list[int], lines: list[int]) -> dict:
    """Random weights with the public names; features and linear weights in files of their own."""
    generator = torch.Generator().manual_seed(0)
    features, last = {}, 3
    for (index, kernel), width in zip(kernels.items(), widths, strict=True):
        weight = torch.randn(width, last, kernel, kernel, generator=generator) / kernel
        features[f"features.{index}.weight"] = weight
        features[f"features.{index}.bias"] = torch.randn(width, generator=generator) * 0.1
        last = width
    linear = {
        f"lin{k}.model.1.weight": torch.rand(1, width, 1, 1, generator=generator)
        for k, width in enumerate(lines)
    }
    folder.mkdir()
    save_file(features, folder / "backbone.safetensors")
    save_file(linear, folder / "linear.safetensors")
    return {name: tensor.double().numpy() for name, tensor in (features | linear).items()}


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("lpips") / "alex"
    widths = [4, 6, 8, 5, 7]
    return folder, _save(folder, {i: k for i, (k, *_) in ALEX.items()}, widths, widths)


def _conv(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, pad: int) -> np.ndarray:
    """Convolution of [C, H, W] by sliding windows."""
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(1, 2))
    found = np.einsum("chwij,ocij->ohw", windows[:, ::stride, ::stride], weight)
    return found + bias[:, None, None]


def _pool(x: np.ndarray) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2].max((3, 4))


def _alexnet_layers(image: np.ndarray, weights: dict) -> list[np.ndarray]:
    x, found = ((image / 127.5 - 1 - SHIFT) / SCALE).transpose(2, 0, 1), []
    for index, (_, stride, pad) in ALEX.items():
        if index in (3, 6):
            x = _pool(x)
        names = (f"features.{index}.{part}" for part in ("weight", "bias"))
        x = np.maximum(_conv(x, *(weights[name] for name in names), stride, pad), 0)
        found.append(x)
    return found


def test_alexnet_against_numpy(alexnet):
    folder, weights = alexnet
    a, b = _images(0), _images(1)
    expected = []
    for pair in zip(a, b, strict=True):
        total = 0.0
        layers = zip(*(_alexnet_layers(image, weights) for image in pair), strict=True)
        for k, (x, y) in enumerate(layers):
            x, y = (f / (np.sqrt((f**2).sum(0)) + 1e-10) for f in (x, y))
            line = weights[f"lin{k}.model.1.weight"][0]
            total += (line * (x - y) ** 2).sum(0).mean()
        expected.append(total)
    network = load_lpips(str(folder), None, "cpu")
    np.testing.assert_allclose(network(a, b), expected, rtol=1e-4)
    assert network(a, a).tolist() == [0, 0, 0]
    assert network.settings()["backbone"] == f"AlexNet of {folder}"


def test_vgg_has_the_public_layout(tmp_path: Path):
    widths = [2, 2, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6]
    weights = _save(tmp_path / "vgg", dict.fromkeys(VGG_CONVS, 3), widths, [2, 3, 4, 5, 6])
    modules, last = [], 3
    for index, width in zip(VGG_CONVS, widths, strict=True):
        if index - 1 in (4, 9, 16, 23):
            modules.append(torch.nn.MaxPool2d(2))
        modules += [torch.nn.Conv2d(last, width, 3, padding=1), torch.nn.ReLU()]
        last = width
    network = torch.nn.Sequential(*modules).double().requires_grad_(False)
    for index in VGG_CONVS:
        for part in ("weight", "bias"):
            value = torch.from_numpy(weights[f"features.{index}.{part}"])
            getattr(network[index], part).data = value
    sides = []
    for images in (_images(2, 1, 32), _images(3, 1, 32)):
        x = torch.from_numpy((images / 127.5 - 1 - SHIFT) / SCALE).permute(0, 3, 1, 2)
        features = []
        for index, module in enumerate(network):
            x = module(x)
            if index - 1 in VGG_FEATURES:
                features.append(torch.nn.functional.normalize(x, dim=1))
        sides.append(features)
    expected = sum(
        float((torch.from_numpy(weights[f"lin{k}.model.1.weight"]) * (a - b) ** 2).sum(1).mean())
        for k, (a, b) in enumerate(zip(*sides, strict=True))
    )
    found = load_lpips(str(tmp_path / "vgg"), None, "cpu")(_images(2, 1, 32), _images(3, 1, 32))
    assert found[0] == pytest.approx(expected, rel=1e-4)


def test_the_clip_tower_against_numpy(tiny_teacher: Path):
    network = load_lpips("teacher_clip", tiny_teacher, "cpu")
    assert network.name == "CLIP tower of the teacher, unit-normalised hidden states"
    a, b = _images(4), _images(5)
    clip = load_extractor("teacher_clip", tiny_teacher, "cpu")
    with torch.no_grad():
        sides = [
            clip.model.vision_model(clip.preprocess(x), output_hidden_states=True).hidden_states
            for x in (a, b)
        ]
    layers = []
    for x, y in zip(*sides, strict=True):
        x, y = (
            s.double().numpy() / np.linalg.norm(s.double(), axis=2, keepdims=True) for s in (x, y)
        )
        layers.append(((x - y) ** 2).sum(2).mean(1))
    np.testing.assert_allclose(network(a, b), np.mean(layers, axis=0), rtol=1e-4)
    assert (network(a, a) == 0).all()
    assert load_lpips("teacher_clip", None, "cpu", clip).fingerprint == clip.fingerprint
    by_folder = load_lpips(str(tiny_teacher / "clip"), None, "cpu")
    np.testing.assert_allclose(by_folder(a, b), network(a, b))


def test_values_do_not_depend_on_order_or_batch(alexnet):
    network = load_lpips(str(alexnet[0]), None, "cpu")
    a, b = _images(6, 70, 32), _images(7, 70, 32)
    together = network(a, b)
    alone = np.concatenate([network(a[i : i + 1], b[i : i + 1]) for i in range(len(a))])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(network(a[::-1], b[::-1])[::-1], together, atol=1e-6)


def test_a_wrong_range_is_an_error(alexnet):
    network = load_lpips(str(alexnet[0]), None, "cpu")
    with pytest.raises(DistilleryError, match="8-bit integers"):
        network(_images(0) / 255, _images(1) / 255)
    with pytest.raises(DistilleryError, match=r"\[-1, 1\] is due"):
        network.layers(torch.full((1, 3, 64, 64), 255.0))
    assert check_range(torch.ones(2)) is not None


def test_a_network_that_is_not_there_or_is_another_is_an_error(alexnet, tmp_path: Path):
    with pytest.raises(DistilleryError, match=r"set evaluate\.lpips"):
        load_lpips("teacher_clip", tmp_path, "cpu")
    with pytest.raises(DistilleryError, match="0 convolutions"):
        load_lpips(str(tmp_path), None, "cpu")
    weights = {k: torch.tensor(v).float() for k, v in alexnet[1].items()}
    (tmp_path / "cut").mkdir()
    (tmp_path / "nan").mkdir()
    save_file(weights | {"x": torch.ones(1) / 0}, tmp_path / "nan" / "all.safetensors")
    with pytest.raises(DistilleryError, match="nan: x holds NaN or infinite"):
        load_lpips(str(tmp_path / "nan"), None, "cpu")
    del weights["lin4.model.1.weight"]
    save_file(weights, tmp_path / "cut" / "all.safetensors")
    with pytest.raises(DistilleryError, match=r"not LPIPS' AlexNet .*lin4"):
        load_lpips(str(tmp_path / "cut"), None, "cpu")
