import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save

from distillery.core.errors import DistilleryError
from distillery.metrics.clip_score import clip_score
from distillery.metrics.features import Extractor, Preprocess, load_extractor

IMAGES = np.random.default_rng(0).integers(0, 256, (70, 48, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def clip(tiny_teacher: Path) -> Extractor:
    return load_extractor("teacher_clip", tiny_teacher, "cpu")


def test_preprocessing_is_that_of_transformers(tiny_teacher: Path):
    module = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    reference = module.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32},
        image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip
    expected = reference(list(IMAGES[:3]), return_tensors="np")["pixel_values"]
    ours = Preprocess.from_folder(tiny_teacher / "clip")(IMAGES[:3]).numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_features_are_the_models_projected_embeddings(clip: Extractor):
    import torch

    pixels = clip.preprocess(IMAGES[:2])
    tokens = clip.tokenizer(["ab", "c"], return_tensors="pt", padding=True)
    with torch.no_grad():
        output = clip.model(**tokens, pixel_values=pixels)
    ours = clip.image_features(IMAGES[:2]), clip.text_features(["ab", "c"])
    for mine, theirs in zip(ours, (output.image_embeds, output.text_embeds), strict=True):
        unit = mine / np.linalg.norm(mine, axis=1, keepdims=True)
        np.testing.assert_allclose(unit, theirs.numpy(), atol=1e-5)


def test_features_do_not_depend_on_order_or_batch(clip: Extractor):
    together = clip.image_features(IMAGES)
    alone = np.concatenate([clip.image_features(IMAGES[i : i + 1]) for i in range(len(IMAGES))])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(clip.image_features(IMAGES[::-1]), together[::-1], atol=1e-6)


def test_prepared_features_are_the_same_bits_in_any_company(clip: Extractor):
    pixels = [clip.prepare(image[: 30 + number]) for number, image in enumerate(IMAGES[:9])]
    together = clip.prepared_features(pixels)
    for number in range(9):
        alone = clip.prepared_features(pixels[number : number + 1])
        assert (alone == together[number]).all()
    np.testing.assert_allclose(together[8], clip.image_features(IMAGES[8:9, :38])[0], atol=1e-6)


def test_settings_name_the_network_and_the_resizing(clip: Extractor):
    settings = clip.settings()
    assert settings["extractor"] == "teacher_clip"
    assert "32 px (bicubic" in settings["resize"]


def test_a_wrong_range_is_an_error(clip: Extractor):
    with pytest.raises(DistilleryError, match="8-bit RGB"):
        clip.image_features(IMAGES / 255)


def test_a_network_that_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(DistilleryError, match="brings no CLIP model"):
        load_extractor("teacher_clip", tmp_path, "cpu")
    with pytest.raises(DistilleryError, match="not found; name the folder"):
        load_extractor(str(tmp_path), None, "cpu")


def test_clip_score_is_two_and_a_half_times_the_positive_cosine():
    images = np.array([[3.0, 4.0], [1.0, 0.0], [1.0, 0.0]])
    texts = np.array([[3.0, 4.0], [0.0, 2.0], [-1.0, 0.0]])
    assert clip_score(images, texts).tolist() == [2.5, 0.0, 0.0]
    with pytest.raises(DistilleryError, match="pair"):
        clip_score(images, texts[:2])
    with pytest.raises(DistilleryError, match="zero"):
        clip_score(images, np.zeros_like(texts))


def test_a_damaged_network_is_one_line_and_never_random(tiny_teacher: Path, tmp_path: Path):
    weights = load_file(tiny_teacher / "clip/model.safetensors")
    half = save({k: v for k, v in weights.items() if k != "visual_projection.weight"})
    last = "visual_projection.weight"
    config = json.loads((tiny_teacher / "clip/config.json").read_text())
    normal = json.loads((tiny_teacher / "clip/preprocessor_config.json").read_text())
    for number, (name, data) in enumerate((
        ("model.safetensors", half),
        ("model.safetensors", b"x" * 100),
        ("model.safetensors", save(weights | {last: weights[last] * np.nan})),
        ("config.json", b"[]"),
        ("config.json", b"[" * 99_999),
        ("config.json", json.dumps(config | {"projection_dim": "x"}).encode()),
        ("preprocessor_config.json", b"[]"),
        ("preprocessor_config.json", json.dumps(normal | {"crop_size": {"x": 1}}).encode()),
        ("preprocessor_config.json", json.dumps(normal | {"image_mean": [0.5]}).encode()),
        ("preprocessor_config.json", json.dumps(normal | {"resample": 99}).encode()),
        ("tokenizer.json", b"[]"),
        ("tokenizer.json", b"{"),
        ("tokenizer.json", None),
    )):  # fmt: skip
        folder = shutil.copytree(tiny_teacher / "clip", tmp_path / str(number))
        (folder / name).unlink()
        if data is not None:
            (folder / name).write_bytes(data)
        with pytest.raises(DistilleryError) as raised:
            load_extractor(str(folder), None, "cpu")
        assert str(raised.value).startswith(str(folder)), name
        assert "\n" not in str(raised.value)
