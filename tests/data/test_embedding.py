"""A vision model proposes pairs to the command `deduplicate`: larger crops go, and nothing else."""

import json
import shutil

import cv2
import huggingface_hub
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from data_helpers import jpeg, make_params, write_folder
from safetensors.torch import load_file, save_file

from distillery.core import artifacts
from distillery.core.errors import DistilleryError
from distillery.data.dedupe import embedding, near
from distillery.data.scenes.draw import draw_scene
from distillery.metrics.features import Extractor
from distillery.stages.curate import curate
from distillery.stages.deduplicate import deduplicate
from distillery.stages.ingest import ingest
from one_line import run_command

NUM = 6
CROPS = {
    "square": lambda image: image[30:166, 40:176],
    "wide": lambda image: image[20:160],
    "enlarged": lambda image: cv2.resize(image[48:, 56:], (288, 288)),
}


@pytest.fixture(scope="module")
def curated(tmp_path_factory):
    """Six scenes, and crops of three of them, in two parts."""
    root = tmp_path_factory.mktemp("curated")
    scenes = [draw_scene(5, index, 192).image for index in range(NUM)]
    images = {f"whole{i}": scene for i, scene in enumerate(scenes)}
    images |= {name: crop(scenes[i]) for i, (name, crop) in enumerate(CROPS.items())}
    samples = {f"{n}.jpg": (jpeg(i, 95), "a large red circle") for n, i in images.items()}
    source = {
        "ingest.source": "folder",
        "ingest.path": str(write_folder(root / "source", samples)),
        "ingest.shard_size_samples": 5,
        "data.parts": [0, 1],
    }
    params = make_params(root / "work", source)
    ingest(params, raw=root / "raw")
    for part in params.data.parts:
        curate(params, part=part, raw=root / "raw", curated=root / "curated" / str(part))
    return root / "curated"


class Command:
    """`deduplicate` as a user types it, in a folder of its own."""

    def __init__(self, root, curated, capsys):
        self.root, self.curated, self.capsys, self.shown = root, curated, capsys, ""

    def __call__(self, place, similarity=0.5, parts=(0, 1), out="selection"):
        """The reasons why images went; or the line of an error."""
        changes = {
            "data.parts": list(parts),
            "deduplicate.split": {"val": 0.0, "test": 0.0},
            "deduplicate.embedding": place and str(place),
            "deduplicate.embedding_similarity": similarity,
        }
        values = make_params(self.root / "work", {}).model_dump(mode="json")
        for key, value in changes.items():
            section, name = key.split(".")
            values[section][name] = value
        (self.root / "params.yaml").write_text(yaml.dump(values, Dumper=yaml.CSafeDumper))
        given = ["--params", self.root / "params.yaml", "--curated", self.curated]
        if error := run_command(deduplicate, [*given, "--selection", self.root / out], self.capsys):
            return error
        self.shown = self.capsys.readouterr().err
        rows = pq.read_table(self.root / out / "rejected.parquet").to_pylist()
        return [row["reason"] for row in rows]


@pytest.fixture
def run(tmp_path, curated, capsys):
    return Command(tmp_path, curated, capsys)


def test_larger_crops_are_found_where_a_model_proposes_them(run, tiny_teacher):
    assert run(None) == []
    assert run(tiny_teacher / "clip") == ["near_duplicate"] * len(CROPS)
    assert "deduplicate: 3 images are duplicates by the embedding alone" in run.shown
    assert run(tiny_teacher / "clip", similarity=1.0) == []


@pytest.fixture
def small_files(monkeypatch):
    for name, number in (("_FILE_IMAGES", 4), ("_BATCH_IMAGES", 2), ("_ASKING_ROWS", 3)):
        monkeypatch.setattr(embedding, name, number)


@pytest.fixture
def embedded(monkeypatch):
    """An item for each image that goes through the network."""
    images, prepare = [], Extractor.prepare
    monkeypatch.setattr(Extractor, "prepare", lambda *a: images.append(1) or prepare(*a))
    return images


def test_what_was_embedded_and_compared_is_not_again(
    run, tiny_teacher, small_files, embedded, monkeypatch
):
    """With a part more the outcome is that of a run from nothing, byte for byte."""
    asked, search = [], near.best_crops
    monkeypatch.setattr(near, "best_crops", lambda *a: asked.extend(a[1].tolist()) or search(*a))
    fewer = run(tiny_teacher / "clip", 0.0, parts=(0,))
    num_fewer, num_pairs = len(embedded), len(asked)
    assert num_pairs == num_fewer * (num_fewer - 1) // 2  # each once, all of them at 0
    run(tiny_teacher / "clip", 0.0)
    assert len(embedded) == NUM + len(CROPS)
    assert len(asked) - num_pairs == sum(range(num_fewer, NUM + len(CROPS)))
    run(tiny_teacher / "clip", 0.5)  # another threshold, the same vectors
    assert len(embedded) == NUM + len(CROPS)
    grown = artifacts.hash_files(run.root / "selection")
    assert run(tiny_teacher / "clip", 0.0, parts=(0,), out="fewer") == fewer
    assert len(embedded) == NUM + len(CROPS)
    shutil.rmtree(run.root / "work")
    run(tiny_teacher / "clip", 0.5)
    assert artifacts.hash_files(run.root / "selection") == grown
    assert len(fewer) < len(CROPS)


def test_an_interrupted_run_goes_on_and_damaged_files_are_made_again(
    run, tiny_teacher, small_files, embedded, monkeypatch
):
    features, num = Extractor.prepared_features, NUM + len(CROPS)

    def end(network, pixels):
        if len(embedded) > 6:
            raise DistilleryError("interrupted")
        return features(network, pixels)

    with monkeypatch.context() as patch:
        patch.setattr(Extractor, "prepared_features", end)
        assert run(tiny_teacher / "clip").endswith("interrupted")
    embedded.clear()
    assert run(tiny_teacher / "clip") == ["near_duplicate"] * len(CROPS)
    assert len(embedded) == num - 4
    (run.root / "work/deduplicate/known.npz").unlink()
    first, second, _ = sorted(run.root.glob("work/deduplicate/embeddings/*/*.npz"))
    data, middle = first.read_bytes(), first.stat().st_size // 2
    first.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    second.write_bytes(b"")
    assert run(tiny_teacher / "clip") == ["near_duplicate"] * len(CROPS)
    assert len(embedded) == num - 4 + 8
    assert run.shown.count(": damaged (") == 2
    assert all(f"deduplicate: {file}: damaged (" in run.shown for file in (first, second))


@pytest.mark.parametrize(
    "change",
    [
        lambda names, vectors: (names, vectors[:, :-3]),
        lambda names, vectors: (names, vectors * np.float16(np.nan)),
        lambda names, vectors: (names, vectors[0]),
        lambda names, vectors: (np.array(["a"] * len(names)), vectors),
    ],
    ids=["fewer numbers", "no numbers", "one vector", "other names"],
)
def test_vectors_that_others_wrote_are_made_again(run, tiny_teacher, change):
    wanted = run(tiny_teacher / "clip")
    (run.root / "work/deduplicate/known.npz").unlink()
    (file,) = run.root.glob("work/deduplicate/embeddings/*/*.npz")
    shutil.copy(file, file.with_name("copy.npz"))  # files of other names are not looked at
    file.parent.with_name("a.txt").touch()
    with np.load(file) as held:
        names, vectors = change(held["names"], held["vectors"])
    np.savez(file, names=names, vectors=vectors)
    assert run(tiny_teacher / "clip", out="again") == wanted
    assert run.shown.count(f"deduplicate: {file}: damaged (") == 1


def without_a_layer(clip):
    weights = load_file(clip / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, clip / "model.safetensors", {"format": "pt"})


def as_a_text_model(clip):
    config = {"model_type": "bert", "hidden_size": 8, "num_attention_heads": 1, "vocab_size": 9}
    config |= {"num_hidden_layers": 1, "intermediate_size": 8, "max_position_embeddings": 4}
    (clip / "config.json").write_text(json.dumps(config))
    from transformers import BertConfig, BertModel

    BertModel(BertConfig(**config)).save_pretrained(clip)


def without_numbers(clip):
    weights = load_file(clip / "model.safetensors")
    weights["visual_projection.weight"].zero_()
    save_file(weights, clip / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (without_a_layer, "1 tensors are missing: visual_projection.weight"),
        (as_a_text_model, "gives no vector for an image"),
        (without_numbers, "the model's vectors are zero or no numbers; name another"),
        (lambda clip: (clip / "model.safetensors").write_bytes(b"x" * 99), "cannot load"),
        (
            lambda clip: (clip / "config.json").unlink(),
            "config.json: not found; name the folder of a",
        ),
        (
            lambda clip: (clip / "config.json").write_text("{}"),
            "names no model_type; name the folder",
        ),
        (shutil.rmtree, "neither a local folder nor to be had from the hub"),
    ],
    ids=["layer", "text", "zero", "damaged", "no config", "empty config", "absent"],
)
def test_a_model_that_cannot_be_used_is_one_line(run, tiny_teacher, monkeypatch, harm, said):
    clip = shutil.copytree(tiny_teacher / "clip", run.root / "clip")
    harm(clip)

    def offline(*_, **__):
        raise huggingface_hub.errors.OfflineModeIsEnabled

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    line = run(clip)
    assert said in line
    assert line.startswith("deduplicate: ")
    assert not (run.root / "selection").exists()


def test_the_teachers_word_is_no_place(run):
    line = run("teacher_clip")
    assert "deduplicate.embedding: " in line
    assert "data/scenes-sd/clip" in line
