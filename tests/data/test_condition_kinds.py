"""Kinds beside edges, sketches and segmentations: built-in maps, learned annotators, refusals."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from distillery.core.errors import DistilleryError
from distillery.data.conditions import KINDS, bands
from distillery.data.conditions.annotate import build_annotators, encode_png
from distillery.data.conditions.mask import region_of
from distillery.data.conditions.normal import normal_of_depth
from distillery.data.conditions.openpose import draw_pose
from distillery.data.scenes.draw import draw_scene
from distillery.data.scenes.palette import CLASS_IDS

SETTINGS = {
    "canny_low": 100, "canny_high": 200, "sketch": "builtin", "segmentation": "builtin",
    "softedge": "builtin", "depth": "builtin", "normal": "builtin", "pose": None,
    "pose_detector": None,
}  # fmt: skip
SIZES = [(48, 97), (97, 48), (33, 31)]  # landscape, portrait, odd


def photo(height, width, seed=0):
    """Like a photo: soft light, a bright disc in front, grain."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([80 + 60 * rows / height, 90 + 0 * rows, 60 + 80 * columns / width], axis=2)
    disc = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < (min(height, width) / 3) ** 2
    image[disc] = (230, 210, 190)
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8), disc


def annotator(kind, **settings):
    return build_annotators([kind], {**SETTINGS, **settings})[kind]


def test_depth_of_scenes_is_the_apparent_size_of_their_objects():
    num_exact = 0
    for index in range(60):
        scene = draw_scene(11, index)
        depth = KINDS["depth"].of(scene)[:, :, 0]
        assert ((depth > 0) == (scene.segmentation > 0)).all()
        for item in scene.objects:
            left, top, right, bottom = item.box
            inside = np.s_[top:bottom, left:right]
            own = depth[inside][scene.segmentation[inside] == CLASS_IDS[item.shape]]
            side_px = max(right - left, bottom - top)
            num_exact += abs(int(np.median(own)) - 255 * side_px / 64) <= 2 * 255 / 64 + 1
    assert num_exact >= 0.97 * sum(len(draw_scene(11, i).objects) for i in range(60))


def test_normals_face_the_viewer_but_on_the_sides_of_what_stands_out():
    depth = np.zeros((40, 60), dtype=np.uint8)
    depth[10:30, 20:40] = 200
    normals = normal_of_depth(depth)
    assert (normals[20, 30] == (128, 128, 255)).all()
    left, right, top, bottom = normals[20, 19], normals[20, 40], normals[9, 30], normals[30, 30]
    assert left[0] < 90 < 160 < right[0]  # red: right
    assert bottom[1] < 90 < 160 < top[1]  # green: up
    length = np.linalg.norm(normals.astype(float) / 127.5 - 1, axis=2)
    assert np.abs(length - 1).max() < 0.02


@pytest.mark.parametrize("kind", ["depth", "normal"])
def test_exact_maps_of_scenes_come_from_the_labels_of_their_row(kind):
    scene = draw_scene(4, 2)
    row = {"key": "0", "segmentation": encode_png(scene.segmentation)}
    assert (annotator(kind)(scene.image, row) == KINDS[kind].of(scene)).all()


@pytest.mark.parametrize("kind", ["depth", "normal", "pose"])
def test_what_nothing_draws_is_an_error_that_names_both_ways(kind):
    image, _ = photo(20, 30)
    with pytest.raises(DistilleryError, match=rf"extract_conditions.{kind} to a model.*from: fol"):
        annotator(kind)(image, {"key": "0", "segmentation": None})


@pytest.mark.parametrize("size", SIZES)
def test_built_in_maps_of_photos_show_what_they_are_for(size):
    image, disc = photo(*size)
    rim = cv2.morphologyEx(disc.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((5, 5))) > 0
    for kind in ("softedge", "scribble"):
        map_ = annotator(kind)(image, {})
        assert map_.shape == image.shape
        assert map_[rim].mean() > 3 * max(map_[~rim].mean(), 1)
    assert set(np.unique(annotator("scribble")(image, {}))) == {0, 255}
    blurred = annotator("blur")(image, {})
    assert blurred.shape == image.shape
    assert np.abs(blurred.astype(float) - cv2.blur(image, (9, 9))).mean() < 12
    assert cv2.Laplacian(blurred, cv2.CV_64F).std() < cv2.Laplacian(image, cv2.CV_64F).std() / 3


@pytest.mark.parametrize("kind", ["sketch", "softedge", "scribble", "segmentation"])
def test_large_pictures_are_drawn_as_small_ones_are(kind, monkeypatch):
    image = photo(331, 127)[0]
    whole = annotator(kind)(image, {"segmentation": None})
    for num_rows in (9, 40):
        monkeypatch.setattr(bands, "_BAND_PIXELS", 127 * num_rows)
        assert (annotator(kind)(image, {"segmentation": None}) == whole).all()


def test_masks_follow_from_the_key_alone():
    row = {"key": "000000007", "height": 97, "width": 48}
    masks = [annotator("mask")(photo(97, 48, seed)[0], row) for seed in (0, 1)]
    assert (masks[0] == masks[1]).all()
    assert set(np.unique(masks[0])) == {0, 255}
    assert (masks[0] != annotator("mask")(photo(97, 48)[0], row | {"key": "000000008"})).any()
    shares = [(region_of(str(i), 64, 64) > 0).mean() for i in range(200)]
    assert 0.05 < min(shares) < 0.15 < 0.45 < max(shares) < 0.58


def test_poses_are_drawn_in_openpose_s_colours():
    points = np.zeros((1, 17, 2))
    points[0, 5], points[0, 6] = (300, 200), (200, 200)  # left and right shoulder
    points[0, 8] = (150, 300)  # right elbow
    seen = np.isin(np.arange(17), (5, 6, 8))[None]
    pose = draw_pose(points, seen, 512, 512)
    assert (pose[200, 250] == (255, 85, 0)).all()  # neck, between the shoulders
    assert (pose[200, 200] == (255, 170, 0)).all()  # right shoulder
    assert (pose[300, 150] == (255, 255, 0)).all()  # right elbow
    assert (pose[200, 225] == (153, 0, 0)).all()  # neck to right shoulder, the first limb
    assert (pose[250, 175] == (153, 102, 0)).all()  # upper arm
    assert not pose[350:].any()
    seen[0, 6] = False
    assert not draw_pose(points, seen, 512, 512)[200, 225].any()


@pytest.fixture(scope="module")
def depth_model(tmp_path_factory):
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, DPTImageProcessor

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("depth")
    backbone = {
        "model_type": "dinov2", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 28, "patch_size": 14, "out_features": ["stage1", "stage2"],
        "reshape_hidden_states": False, "intermediate_size": 16,
    }  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, patch_size=14, reassemble_hidden_size=8,
        reassemble_factors=[1, 0.5], neck_hidden_sizes=[8, 8], fusion_hidden_size=8,
        head_hidden_size=4,
    )  # fmt: skip
    DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    DPTImageProcessor(
        size={"height": 28, "width": 28}, ensure_multiple_of=14, keep_aspect_ratio=True
    ).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("size", SIZES)
def test_learned_depth_is_stretched_to_the_size_of_the_photo(depth_model, size):
    image, _ = photo(*size)
    depth = annotator("depth", depth=str(depth_model))(image, {"key": "0"})
    assert depth.shape == size
    assert (depth.min(), depth.max()) == (0, 255)
    normals = annotator("normal", normal=str(depth_model))(image, {"key": "0"})
    assert (normals == normal_of_depth(depth)).all()


def spoil(state):
    name = sorted(state)[0]
    state[name] = torch.full_like(state[name], float("nan"))
    return state


SPOILT = {
    "no weights": (["model.safetensors"], r"\(no \*\.safetensors there\)"),
    "no config": (["config.json"], r"\(no config\.json there\); save model and processor"),
    "no processor": (["preprocessor_config.json"], r"\(no preprocessor_config\.json there\)"),
    "absent shard": ([], r"\(No such file or directory: .*model-00002-of-00002\.safetensors\)"),
    "not a number": ([], r"depth: backbone\..* holds NaN or infinite values; get it again"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_model_s_folder_that_lacks_or_spoils_something_is_one_line(depth_model, tmp_path, what):
    gone, message = SPOILT[what]
    folder = tmp_path / "depth"
    shutil.copytree(depth_model, folder, ignore=lambda *_: gone)
    state = load_file(depth_model / "model.safetensors")
    if what == "not a number":
        save_file(spoil(state), folder / "model.safetensors", metadata={"format": "pt"})
    elif what == "absent shard":
        (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
        places = dict.fromkeys(state, "model-00002-of-00002.safetensors")
        index = {"metadata": {"total_size": 1}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DistilleryError, match=message) as caught:
        annotator("depth", depth=str(folder))
    assert "\n" not in str(caught.value)


def test_learned_poses_of_the_whole_image(tmp_path):
    from transformers import VitPoseConfig, VitPoseForPoseEstimation, VitPoseImageProcessor

    torch.manual_seed(0)
    backbone = {
        "model_type": "vitpose_backbone", "image_size": [32, 24], "patch_size": [8, 8],
        "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_ratio": 2,
        "out_features": ["stage1"],
    }  # fmt: skip
    config = VitPoseConfig(backbone_config=backbone, num_labels=17, use_simple_decoder=True)
    VitPoseForPoseEstimation(config).save_pretrained(tmp_path)
    VitPoseImageProcessor(size={"height": 32, "width": 24}).save_pretrained(tmp_path)
    image, _ = photo(97, 48)
    pose = annotator("pose", pose=str(tmp_path))(image, {"key": "0"})
    assert pose.shape == image.shape
    assert (pose == annotator("pose", pose=str(tmp_path))(image, {"key": "0"})).all()


def test_a_place_without_such_a_model_is_one_line(tmp_path, depth_model):
    for key, place in (("depth", str(tmp_path)), ("pose", str(depth_model))):
        with pytest.raises(DistilleryError, match=f"extract_conditions.{key}: ") as caught:
            annotator(key, **{key: place})
        assert "\n" not in str(caught.value)
