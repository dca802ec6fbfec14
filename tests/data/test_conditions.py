import json

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from distillery.core.errors import DistilleryError
from distillery.core.shards import read_table_shard, write_table_shard
from distillery.data.conditions.annotate import annotate_shard, build_annotators, encode_png
from distillery.data.conditions.learned import Hed, load_segmenter, load_sketcher, voc_colours
from distillery.data.conditions.quantise import quantise_colours
from distillery.data.conditions.segmentation import segmentation_map
from distillery.data.curation.curate import CURATED_SCHEMA
from distillery.data.images import decode_rgb

KINDS = ("canny", "sketch", "segmentation")
SETTINGS = {"canny_low": 100, "canny_high": 200, "sketch": "builtin", "segmentation": "builtin"}
# Odd, narrow, tall and not a multiple of anything.
SIZES = [(1, 1), (5, 3), (63, 65), (70, 200), (331, 127)]


def noise(height, width, seed=0):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (max(height // 8, 1), max(width // 8, 1), 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def curated_shard(path, images, labels=None):
    empty = dict.fromkeys(CURATED_SCHEMA.names)
    rows = [
        {**empty, "key": f"k{i}", "image": {"bytes": encode_png(image), "path": None},
         "segmentation": encode_png(labels[i]) if labels else None}
        for i, image in enumerate(images)
    ]  # fmt: skip
    write_table_shard(path, rows, CURATED_SCHEMA)
    return path


def annotate(shard, folder, selected, **settings):
    targets = {kind: folder / kind / "00000.parquet" for kind in KINDS}
    annotate_shard(shard, targets, build_annotators(KINDS, {**SETTINGS, **settings}), selected)
    return {kind: read_table_shard(path) for kind, path in targets.items()}


def test_maps_have_the_size_of_their_image(tmp_path):
    images = [noise(*size) for size in SIZES]
    shard = curated_shard(tmp_path / "curated.parquet", images)
    maps = annotate(shard, tmp_path, {f"k{i}" for i in range(len(images))})
    for kind in KINDS:
        sizes = [decode_rgb(row["image"]["bytes"]).shape[:2] for row in maps[kind]]
        assert sizes == SIZES


def test_only_selected_keys_and_the_same_bytes_again(tmp_path):
    shard = curated_shard(tmp_path / "curated.parquet", [noise(40, 40, i) for i in range(4)])
    first = annotate(shard, tmp_path / "a", {"k1", "k3"})
    assert [row["key"] for row in first["canny"]] == ["k1", "k3"]
    annotate(shard, tmp_path / "b", {"k3", "k1"})
    for kind in KINDS:
        paths = [tmp_path / run / kind / "00000.parquet" for run in "ab"]
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_exact_labels_go_before_the_annotator(tmp_path):
    labels = np.zeros((16, 16), dtype=np.uint8)
    labels[4:9, 4:9] = 3
    shard = curated_shard(tmp_path / "curated.parquet", [noise(16, 16)], [labels])
    row = annotate(shard, tmp_path, {"k0"})["segmentation"][0]
    assert (decode_rgb(row["image"]["bytes"]) == segmentation_map(labels)).all()


def test_labels_of_another_size_are_an_error(tmp_path):
    shard = curated_shard(
        tmp_path / "curated.parquet", [noise(16, 16)], [np.zeros((8, 16), np.uint8)]
    )
    with pytest.raises(DistilleryError, match="segmentation of k0 is 16 x 8 px"):
        annotate(shard, tmp_path, {"k0"})


def test_unknown_class_ids_are_an_error_that_says_what_to_do(tmp_path):
    labels = np.full((16, 16), 30, dtype=np.uint8)
    shard = curated_shard(tmp_path / "curated.parquet", [noise(16, 16)], [labels])
    with pytest.raises(DistilleryError, match="segmentation of k0 has class 30, known are 7"):
        annotate(shard, tmp_path, {"k0"})


def test_canny_uses_the_thresholds():
    image = noise(64, 64)
    sizes = [
        int(build_annotators(["canny"], {**SETTINGS, "canny_low": low, "canny_high": high})
            ["canny"](image, {}).astype(bool).sum())
        for low, high in ((20, 40), (100, 200))
    ]  # fmt: skip
    assert sizes[0] > sizes[1]


def test_png_is_lossless():
    colour, grey = noise(33, 31), noise(33, 31)[:, :, 0]
    assert (decode_rgb(encode_png(colour)) == colour).all()
    assert (decode_rgb(encode_png(grey))[:, :, 1] == grey).all()


def test_quantised_colours_are_few_and_near():
    image = noise(128, 128)
    quantised = quantise_colours(image)
    assert len(np.unique(quantised.reshape(-1, 3), axis=0)) <= 125
    assert np.abs(quantised.astype(int) - image).mean() < 40
    flat = np.full((8, 8, 3), (250, 3, 2), dtype=np.uint8)
    assert (quantise_colours(flat) == (255, 0, 0)).all()


def test_voc_colours_are_the_published_ones():
    expected = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)]
    assert [tuple(c) for c in voc_colours(5).tolist()] == expected
    assert len(np.unique(voc_colours(256), axis=0)) == 256


def test_hed_from_a_local_folder(tmp_path):
    torch.manual_seed(0)
    save_file(Hed().state_dict(), tmp_path / "hed.safetensors")
    sketch = load_sketcher(tmp_path, "cpu")
    edges = sketch(noise(50, 35))
    assert edges.shape == (50, 35)
    assert edges.dtype == np.uint8
    assert (edges == sketch(noise(50, 35))).all()


def test_hed_weights_that_are_no_numbers_are_refused(tmp_path):
    state = {
        name: torch.full_like(values, torch.nan) for name, values in Hed().state_dict().items()
    }
    save_file(state, tmp_path / "hed.safetensors")
    with pytest.raises(DistilleryError, match=r"hed\.safetensors: .* holds NaN or infinite values"):
        load_sketcher(tmp_path, "cpu")


def test_segmenter_from_a_local_folder(tmp_path):
    from transformers import (
        SegformerConfig,
        SegformerForSemanticSegmentation,
        SegformerImageProcessor,
    )

    torch.manual_seed(0)
    config = SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 8],
        patch_sizes=[7, 3], strides=[4, 2], num_attention_heads=[1, 1], mlp_ratios=[1, 1],
        decoder_hidden_size=8, num_labels=5,
    )  # fmt: skip
    SegformerForSemanticSegmentation(config).save_pretrained(tmp_path)
    SegformerImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    result = load_segmenter(tmp_path, "cpu")(noise(45, 61))
    assert result.shape == (45, 61, 3)
    assert {tuple(c) for c in result.reshape(-1, 3).tolist()} <= {
        tuple(c) for c in voc_colours(5).tolist()
    }


@pytest.mark.parametrize("kind", ["sketch", "segmentation"])
def test_unusable_annotators_are_errors_that_say_what_to_do(tmp_path, kind):
    absent = {kind: str(tmp_path / "absent")}
    with pytest.raises(DistilleryError, match=r"absent: no .*safetensors there.*builtin"):
        build_annotators([kind], {**SETTINGS, **absent})
    save_file({"x": torch.zeros(1)}, tmp_path / "hed.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing"}))
    with pytest.raises(DistilleryError, match=f"{tmp_path.name}.*builtin"):
        build_annotators([kind], {**SETTINGS, kind: str(tmp_path)})
    for text in ("[]", "[" * 99_999, '{"model_type": "segformer", "depths": 3}'):
        (tmp_path / "config.json").write_text(text)
        (tmp_path / "preprocessor_config.json").write_text(text)
        (tmp_path / "hed.safetensors").write_bytes(b"x" * 50)
        with pytest.raises(DistilleryError, match=f"{tmp_path.name}.*builtin"):
            build_annotators([kind], {**SETTINGS, kind: str(tmp_path)})
