import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distillery.commands.evaluate import as_text, evaluate
from distillery.core.errors import DistilleryError
from distillery.core.shards import shard_name, write_table_shard
from distillery.data.conditions import KINDS
from distillery.data.conditions.canny import canny_map
from distillery.data.conditions.segmentation import segmentation_map
from distillery.data.conditions.sketch import sketch_map
from distillery.data.image_folders import read_prompts
from distillery.data.scenes.draw import draw_scene
from distillery.metrics import meters
from distillery.metrics.edges import EDGE_METRICS
from distillery.metrics.folders import Given, evaluate_folders
from distillery.metrics.meter import MAPS
from distillery.sampling.samples import SCHEMA

OF_MAPS = set(meters.names_of(m for m in meters.METERS if m.needs_any({MAPS})))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    generator = np.random.default_rng(0)
    a, b = tmp_path / "a", tmp_path / "b"
    for folder in (a, b):
        folder.mkdir()
    for i in range(8):
        image = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        noisy = (image.astype(int) + generator.integers(-9, 10, image.shape)).clip(0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(a / f"{i}.png")
        Image.fromarray(image).save(b / f"{i}.png")
    return a, b


def test_psnr_and_ssim_are_means_of_per_image_values(folders):
    metrics = pytest.importorskip("skimage.metrics")
    a, b = folders
    found = evaluate_folders(a, b)
    expected = [
        metrics.peak_signal_noise_ratio(
            np.asarray(Image.open(b / f"{i}.png")), np.asarray(Image.open(a / f"{i}.png"))
        )
        for i in range(8)
    ]
    psnr = found["metrics"]["psnr"]
    assert psnr["value"] == pytest.approx(np.mean(expected), rel=1e-5)
    assert psnr["ci_low"] <= psnr["value"] <= psnr["ci_high"]
    assert psnr["n"] == 8
    assert set(found["metrics"]) == {"psnr", "ssim"}
    assert set(found["skipped"]) == {"fid", "kid", "clip_score", "lpips", *OF_MAPS}
    assert found["per_image"]["values"]["psnr"]["0"] == pytest.approx(expected, rel=1e-4)


def test_pairs_may_differ_in_size_from_pair_to_pair(folders, tiny_teacher: Path):
    a, b = folders
    for folder in folders:
        Image.open(folder / "5.png").resize((48, 40)).save(folder / "5.png")
    found = evaluate_folders(a, b, Given(extractor=str(tiny_teacher / "clip")), num_blocks=4)
    assert found["metrics"]["psnr"]["n"] == found["metrics"]["fid"]["n"] == 8


def test_a_named_metric_that_cannot_be_had_is_an_error(folders):
    with pytest.raises(DistilleryError, match="--metrics fid: no feature extractor"):
        evaluate_folders(*folders, metrics=["fid"])
    with pytest.raises(DistilleryError, match="--metrics nonsense: unknown"):
        evaluate_folders(*folders, metrics=["nonsense"])


def test_with_a_network_the_other_metrics_appear(folders, tiny_teacher: Path, tmp_path: Path):
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({f"{i}.png": "a red circle" for i in range(8)}))
    clip = str(tiny_teacher / "clip")
    found = evaluate_folders(*folders, Given(prompts, extractor=clip), num_blocks=4)
    assert set(found["metrics"]) == {"psnr", "ssim", "fid", "kid", "clip_score"}
    assert set(found["skipped"]) == {"lpips", *OF_MAPS}
    assert found["metrics"]["fid"]["settings"]["extractor"] == clip


def test_edge_maps_and_an_lpips_network_add_their_metrics(folders, tiny_teacher: Path):
    a, b = folders
    maps = a.parent / "maps"
    maps.mkdir()
    for i in range(8):
        edges = canny_map(np.asarray(Image.open(a / f"{i}.png").convert("RGB")))
        Image.fromarray(edges * (i != 3)).save(maps / f"{i}.png")
    found = evaluate_folders(a, b, Given(conditions=maps, lpips=str(tiny_teacher / "clip")))
    assert found["metrics"]["edge_nmse"]["value"] == 0
    assert found["metrics"]["edge_f1"]["n"] == 7
    assert found["metrics"]["edge_f1"]["settings"]["left_out_empty_maps"] == 1
    assert found["per_image"]["values"]["edge_f1"]["0"][3] is None
    assert found["metrics"]["lpips"]["value"] > 0
    assert set(found["skipped"]) == {"fid", "kid", "clip_score", *OF_MAPS} - set(EDGE_METRICS)
    assert "--conditions holds canny maps" in found["skipped"]["miou"]
    (maps / "5.png").unlink()
    with pytest.raises(DistilleryError, match="a/5: not in"):
        evaluate_folders(a, b, Given(conditions=maps))
    for name in ("lpips", "edge_f1"):
        with pytest.raises(DistilleryError, match=f"--metrics {name}: no"):
            evaluate_folders(a, b, metrics=[name])


@pytest.fixture
def drawn(tmp_path: Path) -> dict[str, Path]:
    """Folders of eight scenes, their sketches and segmentations, the last one larger."""
    folders = {name: tmp_path / name for name in ("scenes", "sketch", "segmentation")}
    for folder in folders.values():
        folder.mkdir()
    for i in range(8):
        scene = draw_scene(11, i)
        made = {
            "scenes": scene.image,
            "sketch": sketch_map(scene.image),
            "segmentation": segmentation_map(scene.segmentation),
        }
        for name, image in made.items():
            size = (96, 96) if i == 7 else (64, 64)
            whole = Image.fromarray(image).resize(size, Image.Resampling.NEAREST)
            whole.save(folders[name] / f"{i}.png")
    return folders


def test_segmentations_are_judged_by_the_segmenter_that_is_named(drawn: dict[str, Path]):
    scenes, kind = drawn["scenes"], {"condition_kind": "segmentation"}
    maps = {**kind, "conditions": drawn["segmentation"]}
    found = evaluate_folders(scenes, scenes, Given(**maps, segmenter="scenes"))
    miou = found["metrics"]["miou"]
    assert miou["value"] > 0.8
    assert (miou["n"], miou["settings"]["segmenter"]) == (8, "reader of scenes")
    assert "--conditions holds segmentation maps" in found["skipped"]["edge_f1"]
    without = evaluate_folders(scenes, scenes, Given(**maps))
    assert "--segmenter scenes" in without["skipped"]["miou"]
    with pytest.raises(DistilleryError, match="--metrics miou: no segmenter"):
        evaluate_folders(scenes, scenes, Given(**maps), metrics=["miou"])
    lost = evaluate_folders(scenes, scenes, Given(**maps, segmenter="no such folder"))
    assert "no such folder: no" in lost["skipped"]["miou"]
    with pytest.raises(DistilleryError, match="--condition-kind hue: one of canny"):
        Given(condition_kind="hue")


def test_maps_of_any_kind_are_drawn_again_by_what_is_named(drawn: dict[str, Path], tmp_path: Path):
    scenes = drawn["scenes"]
    for kind in ("depth", "blur", "mask"):
        (tmp_path / kind).mkdir()
        for file in sorted(scenes.iterdir()):
            size = (96, 96) if file.stem == "7" else (64, 64)
            map_ = Image.fromarray(KINDS[kind].of(draw_scene(11, int(file.stem))))
            map_.resize(size, Image.Resampling.NEAREST).save(tmp_path / kind / file.name)
    depth = {"conditions": tmp_path / "depth", "condition_kind": "depth"}
    found = evaluate_folders(scenes, scenes, Given(**depth, annotator="scenes"))
    distance = found["metrics"]["depth_distance"]
    assert distance["value"] < 0.02
    assert (distance["n"], distance["settings"]["drawn_again_by"]) == (8, "scenes")
    assert "--conditions holds depth maps" in found["skipped"]["edge_f1"]
    with pytest.raises(DistilleryError, match=r"--metrics depth_distance: .* give --annotator"):
        evaluate_folders(scenes, scenes, Given(**depth), metrics=["depth_distance"])
    pose = Given(conditions=tmp_path / "depth", condition_kind="pose", annotator="scenes")
    with pytest.raises(DistilleryError, match="give --annotator a folder or a hub id"):
        evaluate_folders(scenes, scenes, pose, metrics=["pose_distance"])
    blur = Given(conditions=tmp_path / "blur", condition_kind="blur")
    assert evaluate_folders(scenes, scenes, blur)["metrics"]["blur_distance"]["value"] < 0.05
    mask = Given(conditions=tmp_path / "mask", condition_kind="mask")
    assert set(evaluate_folders(scenes, scenes, mask)["metrics"]) == {"psnr", "ssim"}


def test_sketches_need_a_network_and_captions_for_a_score(
    drawn: dict[str, Path], tiny_teacher: Path, tmp_path: Path
):
    scenes, maps = drawn["scenes"], {"conditions": drawn["sketch"], "condition_kind": "sketch"}
    network = {"extractor": str(tiny_teacher / "clip")}
    found = evaluate_folders(scenes, scenes, Given(**maps, **network), num_blocks=4)
    assert found["metrics"]["sketch_similarity"]["value"] > 0.9
    assert found["skipped"]["sketch_clip_score"] == "no prompts are given"
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({f"{i}.png": "a red circle" for i in range(8)}))
    found = evaluate_folders(scenes, scenes, Given(prompts, **maps, **network), num_blocks=4)
    assert found["metrics"]["sketch_clip_score"]["n"] == 8
    found = evaluate_folders(scenes, scenes, Given(**maps))
    assert "no feature extractor" in found["skipped"]["sketch_similarity"]


def test_the_command_writes_the_file_and_a_table(folders, tmp_path: Path):
    out = tmp_path / "metrics.json"
    found = evaluate(*folders, out, metrics="psnr, ssim")
    assert json.loads(out.read_text()) == found
    assert "lpips" in as_text(found)
    with pytest.raises(DistilleryError, match="an empty name"):
        evaluate(*folders, out, metrics="psnr,")


def test_broken_unmatched_and_odd_files_are_all_listed(folders):
    a, b = folders
    (a / "0.png").write_bytes(b"not an image")
    (a / "1.png").unlink()
    (a / "extra.png").write_bytes((a / "2.png").read_bytes())
    Image.new("RGB", (16, 16)).save(a / "3.png")
    with pytest.raises(DistilleryError) as caught:
        evaluate_folders(a, b)
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    for part in ("0.png: broken", "not in", "extra", "3.png: (16, 16)", "4 files do not pair"):
        assert part in str(caught.value)


def test_empty_and_missing_folders_are_errors(tmp_path: Path, folders):
    with pytest.raises(DistilleryError, match="no folder"):
        evaluate_folders(tmp_path / "nowhere", folders[1])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DistilleryError, match="no images"):
        evaluate_folders(tmp_path / "empty", folders[1])


def test_names_that_are_no_utf8_are_shown_escaped(tmp_path: Path):
    for name in (b"caf\xe9.png", b"plain.png"):
        Image.new("RGB", (16, 16), (9, 9, 9)).save(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    found = evaluate_folders(tmp_path, tmp_path, metrics=["psnr"])
    assert found["per_image"]["keys"] == ["caf\\xe9", "plain"]
    json.dumps(found, ensure_ascii=False).encode()


def test_prompts_come_from_json_or_csv_and_none_is_missing(tmp_path: Path):
    table = tmp_path / "prompts.csv"
    table.write_text('file_name,text\na.png,"one, two"\nb.png,three\n')
    assert read_prompts(table, ["b", "a"]) == ["three", "one, two"]
    with pytest.raises(DistilleryError, match="no prompt for c"):
        read_prompts(table, ["a", "c"])
    with pytest.raises(DistilleryError, match="no prompts"):
        read_prompts(tmp_path / "none.json", ["a"])


def test_marks_of_spreadsheets_and_dots_in_names(tmp_path: Path):
    table = tmp_path / "prompts.csv"
    table.write_text("\ufefffile_name,text\nv1.5,one\nv1.6.PNG,two\n")
    assert read_prompts(table, ["v1.5", "v1.6"]) == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"name,words\na,b\n", r"a.csv: no prompts \(no column file_name\); give JSON"),
        ("a.csv", "file_name,text\na,caf\xe9\n".encode("latin-1"), r"\(not UTF-8\)"),
        ("a.json", b'["a"]', r"\(no JSON object\)"),
        ("a.csv", b"file_name,text\na\n", "a.csv: a: no text; give a prompt"),
        ("a.json", b'{"a": 5}', "a.json: a: no text; give a prompt"),
        ("a.json", b'{"": "text"}', "a.json: a row without name: no text"),
        ("a.csv", b'file_name,text\na,x\nb,"one\nc,two"\n', "a.csv:3: a text of several lines"),
        ("a.csv", b'file_name,text\na,x\nb,"one\nc,"two\n', r"no prompts \(',' expected after"),
        ("a.csv", b'file_name,text\na,"one\nb,two\n', r"no prompts \(unexpected end of data"),
        ("a.csv", b"", "a.csv: holds no prompts; give at least one"),
        ("a.json", b"{}", "a.json: holds no prompts; give at least one"),
    ],
)
def test_files_without_prompts_say_why(tmp_path: Path, name: str, content: bytes, message: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DistilleryError, match=message):
        read_prompts(tmp_path / name, ["a"])
    with pytest.raises(DistilleryError, match=r"\(Is a directory\)"):
        read_prompts(tmp_path, ["a"])


def _as_shards(folder: Path, target: Path) -> Path:
    """The images of a folder as the pipeline keeps its samples: shards of two."""
    files = sorted(folder.iterdir())
    for number in range(0, len(files), 2):
        rows = [
            {"key": file.stem, "image": {"bytes": file.read_bytes(), "path": None}, "caption": "x",
             "noise_seed": 0, "condition": ""}
            for file in files[number : number + 2]
        ]  # fmt: skip
        write_table_shard(target / "seed-0" / shard_name(number, "parquet"), rows, SCHEMA)
    return target


def test_the_pipelines_own_samples_are_read_as_they_are(folders, tmp_path: Path):
    a, b = folders
    shards = _as_shards(a, tmp_path / "samples")
    from_files, from_shards = (evaluate_folders(images, b) for images in (a, shards))
    assert from_shards["metrics"] == from_files["metrics"]
    shutil.copytree(shards / "seed-0", shards / "seed-1")
    with pytest.raises(DistilleryError, match=r"2 training seeds; give .*seed-0"):
        evaluate_folders(shards, b)


def test_what_can_not_be_had_is_skipped_and_the_rest_measured(folders, tmp_path: Path):
    nowhere = str(tmp_path / "no-clip")
    found = evaluate_folders(*folders, Given(extractor=nowhere))
    assert set(found["metrics"]) == {"psnr", "ssim"}
    assert nowhere in found["skipped"]["kid"]
    with pytest.raises(DistilleryError, match="--metrics kid"):
        evaluate_folders(*folders, Given(extractor=nowhere), metrics=["kid"])


def test_few_images_still_have_psnr_and_ssim(folders, tiny_teacher: Path):
    given = Given(extractor=str(tiny_teacher / "clip"))
    for count in (4, 3):
        for path in (path for folder in folders for path in folder.iterdir()):
            if int(path.stem) >= count:
                path.unlink()
        found = evaluate_folders(*folders, given)
        assert {"psnr", "ssim"} <= set(found["metrics"])
        assert ("kid" in found["metrics"]) == (count == 4)
    assert found["skipped"]["kid"].startswith("3 images are too few")
    with pytest.raises(DistilleryError, match="--metrics kid: 3 images are too few"):
        evaluate_folders(*folders, given, metrics=["kid"])


def test_the_bar_ends_at_all_of_them(folders, tmp_path: Path, capfd: pytest.CaptureFixture):
    (folders[0] / "notes.txt").write_text("no image")
    evaluate(*folders, tmp_path / "out.json")
    assert capfd.readouterr().err.splitlines()[-1].startswith("evaluate: 100% 16/16")
