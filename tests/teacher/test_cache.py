"""The cache says what the teacher says, holds no test record, and is never silently damaged."""

import dataclasses
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from cache_helpers import (
    NUM_RECORDS,
    PLAN,
    SPLITS,
    open_cache,
    v_teacher,
    write_cache,
    write_curated,
    write_maps,
)
from distillery.core.artifacts import hash_files
from distillery.core.errors import DamagedError, DistilleryError
from distillery.core.run import Run
from distillery.core.shards import read_tensor_shard, write_tensor_shard
from distillery.data.conditions.reader import ConditionMaps
from distillery.data.loader import SPLITS as SPLIT_CODES
from distillery.data.loader import Record, iter_records
from distillery.diffusion.conditioning import stacked
from distillery.diffusion.noise import noise, timestep
from distillery.diffusion.objectives import (
    Diffusion,
    DistillOutput,
    cached_output,
    online_output,
    predict,
)
from distillery.sampling.sampler import Sampler
from distillery.sampling.samples import Prompt
from distillery.teacher.cache.files import CACHED_SPLITS
from distillery.teacher.cache.read import TeacherCache
from distillery.teacher.cache.views import open_view, read_maps
from distillery.teacher.cache.write import write_base, write_view
from distillery.teacher.load import Teacher, alphas_cumprod, encode_prompts, load_teacher
from tiny_models import tiny_controlnet


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Curated parts and selection."""
    folder = tmp_path_factory.mktemp("cached")
    write_curated(folder)
    return folder


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    return v_teacher(tiny_teacher, tmp_path_factory.mktemp("v") / "teacher")


@pytest.fixture(scope="module")
def cache_root(root: Path, teacher: Teacher) -> Path:
    """A float32 cache with both views; tests that change it copy it first."""
    write_cache(root, teacher, root / "cache", views=("cond", "uncond"))
    return root / "cache"


@pytest.fixture
def copied(cache_root: Path, tmp_path: Path) -> Path:
    return shutil.copytree(cache_root, tmp_path / "cache")


def _diffusion(teacher: Teacher) -> Diffusion:
    return Diffusion.create(
        alphas_cumprod(teacher.scheduler), "v_prediction", space="native", kind="min_snr", gamma=5.0
    )


def test_only_train_and_val_are_cached_in_the_order_of_keys(cache_root: Path) -> None:
    cache = open_cache(cache_root, "cond")
    for split in ("train", "val"):
        samples = cache.samples(split)
        wanted = [f"{i:04d}" for i in range(NUM_RECORDS) if SPLITS[i % len(SPLITS)] == split]
        assert samples.batch(range(0, len(samples), 2)).keys == wanted


def test_a_batch_is_what_the_teacher_is_asked(cache_root: Path, teacher: Teacher) -> None:
    batch = open_cache(cache_root, "cond").samples("train").batch([5, 2])
    assert batch.keys == ["0004", "0001"]
    assert batch.timesteps.tolist() == [
        timestep(7, "0004", 1, 2, 1000),
        timestep(7, "0001", 0, 2, 1000),
    ]
    assert torch.equal(batch.noise[0], noise(7, "0004", 1, (16, 8, 8)))
    torch.testing.assert_close(batch.conditioning["text"], encode_prompts(teacher, ["ccc", "aaa"]))


def test_latents_may_be_what_the_teacher_draws_from_the_captions(
    root: Path, teacher: Teacher, cache_root: Path, tmp_path: Path
) -> None:
    sampler = Sampler(
        teacher, num_inference_steps=2, guidance_scale=3.0, resolution_px=64, noise_seed=7
    )
    write_cache(
        root, teacher, tmp_path / "cache", views=(),
        make_latents=lambda records: sampler.latents([Prompt(r.key, r.caption) for r in records]),
    )  # fmt: skip
    drawn, encoded = (
        open_cache(path).samples("train").batch([0, 4]) for path in (tmp_path / "cache", cache_root)
    )
    wanted = sampler.latents([Prompt(k, "abcdefgh"[int(k) // 2] * 3) for k in drawn.keys])
    assert drawn.keys == encoded.keys
    torch.testing.assert_close(drawn.latents, wanted)
    torch.testing.assert_close(drawn.conditioning["text"], encoded.conditioning["text"])
    assert not torch.allclose(drawn.latents, encoded.latents)


def test_captions_are_embedded_once(cache_root: Path) -> None:
    for part in (0, 1):
        keys, arrays = read_tensor_shard(cache_root / f"base/{part}/text-00000.safetensors")
        assert len(set(keys)) == len(keys) == len(arrays["embedding"])
    assert open_cache(cache_root).empty()["text"].shape == (1, 16, 32)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 1e-3)])
def test_cached_and_online_teacher_give_the_same_loss(
    root: Path, teacher: Teacher, tmp_path: Path, dtype: str, tolerance: float
) -> None:
    write_cache(root, teacher, tmp_path / "cache", dtype=dtype)
    samples = open_cache(tmp_path / "cache", "cond").samples("train")
    diffusion, student = _diffusion(teacher), _student(teacher)
    for items in ([0, 1, 2], range(len(samples))):
        batch = samples.batch(items)
        with torch.no_grad():
            cached = DistillOutput(diffusion, cached_output("cond"))(student, batch)["output"]
            ask = online_output(teacher.unet)
            online = DistillOutput(diffusion, ask)(student, batch)["output"]
        assert float(cached) == pytest.approx(float(online), rel=tolerance)


def test_equal_bit_for_bit_where_batches_are_composed_alike(
    cache_root: Path, teacher: Teacher
) -> None:
    """Part 0 begins with keys 0000 (train), 0002 (val), 0004: the first batch of four items."""
    cache = open_cache(cache_root, "cond", "uncond")
    train, val = cache.samples("train").batch([0, 1]), cache.samples("val").batch([0, 1])
    assert train.keys + val.keys == ["0000", "0000", "0002", "0002"]
    together = {
        name: torch.cat([getattr(train, name), getattr(val, name)])
        for name in ("latents", "noise", "timesteps")
    }
    told = stacked(train.conditioning, val.conditioning)
    batch = type(train)(keys=train.keys + val.keys, conditioning=told, **together)
    noisy = _diffusion(teacher).noisy(batch)
    online = online_output(teacher.unet)(batch, noisy)
    assert torch.equal(online, torch.cat([train.outputs["cond"], val.outputs["cond"]]))


def test_uncond_is_the_output_for_the_empty_caption(cache_root: Path, teacher: Teacher) -> None:
    batch = open_cache(cache_root, "uncond").samples("train").batch(range(6))
    noisy = _diffusion(teacher).noisy(batch)
    told = {"text": encode_prompts(teacher, [""] * 6)}
    empty = dataclasses.replace(batch, conditioning=told)
    with torch.no_grad():
        wanted = predict(teacher.unet, noisy, empty)
    torch.testing.assert_close(batch.outputs["uncond"], wanted, rtol=1e-4, atol=1e-5)


def test_a_planted_test_record_is_refused_by_writer_and_reader(
    copied: Path, teacher: Teacher, tmp_path: Path
) -> None:
    path = copied / "base/1/00000.safetensors"
    keys, arrays = read_tensor_shard(path)
    arrays["split"][2] = SPLIT_CODES.index("test")
    write_tensor_shard(path, keys, arrays)
    with pytest.raises(DistilleryError, match=f"record {keys[2]} is of split test"):
        open_cache(copied, "cond")
    leak = Record("leak", 0, "test", "c", "a caption", b"")
    with pytest.raises(DistilleryError, match="record leak is of split test"):
        write_base(lambda: [leak], teacher, tmp_path / "leaked", None, None)
    assert not (tmp_path / "leaked").exists()


@pytest.mark.parametrize("view", ["base", "cond"])
def test_a_flipped_bit_names_shard_and_record_before_use(copied: Path, view: str) -> None:
    path = copied / view / "0" / "00001.safetensors"
    keys, _ = read_tensor_shard(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # the last record's last array
    path.write_bytes(bytes(data))
    with pytest.raises(DamagedError, match=rf"{view}/0/00001.safetensors: record {keys[-1]}"):
        _read_all(copied)


def test_a_cut_shard_is_named(copied: Path) -> None:
    path = copied / "cond/1/00000.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DamagedError, match=r"cond/1/00000.safetensors: unreadable"):
        open_cache(copied, "cond")


def test_a_rerun_makes_only_the_damaged_shard_again(
    root: Path, teacher: Teacher, tmp_path: Path
) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    write_cache(root, teacher, first, seed=11)
    before = hash_files(first)
    damaged = first / "cond/0/00001.safetensors"
    inodes = {path.name: path.stat().st_ino for path in (first / "cond/0").glob("*.safetensors")}
    data = bytearray(damaged.read_bytes())
    data[-5] ^= 4
    damaged.write_bytes(bytes(data))
    write_cache(root, teacher, again, seed=11)
    assert hash_files(again) == before
    remade = {
        path.name
        for path in (again / "cond/0").glob("*.safetensors")
        if path.stat().st_ino != inodes[path.name]
    }
    assert remade == {"00001.safetensors"}


def test_a_view_is_told_by_what_it_says_not_by_its_folder(copied: Path) -> None:
    base, views = copied / "latents", {"cond": copied / "answers"}
    (copied / "base").rename(base)
    (copied / "cond").rename(views["cond"])
    assert "cond" in TeacherCache(base, views, 1000).samples("val").batch([0]).outputs
    with pytest.raises(DistilleryError, match="answers/0: holds the view cond, not uncond"):
        TeacherCache(base, {"uncond": views["cond"]}, 1000)


def test_views_that_do_not_fit_together_are_refused(
    root: Path, teacher: Teacher, copied: Path, tmp_path: Path
) -> None:
    with pytest.raises(DistilleryError, match="add control_canny to cache_teacher"):
        open_cache(copied, "control_canny")
    write_cache(root, teacher, tmp_path / "other", seed=8)
    shutil.rmtree(copied / "cond")
    shutil.copytree(tmp_path / "other/cond", copied / "cond")
    with pytest.raises(DistilleryError, match=r"view cond has seed 8, base in .* has 7"):
        open_cache(copied, "cond")


def test_first_use_checks_and_later_use_does_not_reread_all(cache_root: Path) -> None:
    samples = open_cache(cache_root, "cond").samples("train")
    once, twice = samples.batch([3, 3]), samples.batch([3])
    assert torch.equal(once.latents[0], twice.latents[0])
    assert np.isfinite(once.outputs["cond"].numpy()).all()


def _read_all(root: Path) -> None:
    cache = open_cache(root, "cond")
    for split in ("train", "val"):
        cache.samples(split).batch(range(len(cache.samples(split))))


def _student(teacher: Teacher) -> torch.nn.Module:
    from tiny_models import tiny_unet

    student = tiny_unet()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(0.9)
    return student


def test_a_control_view_is_the_teacher_under_its_controlnet(
    tiny_teacher: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "teacher"
    teacher = v_teacher(tiny_teacher, folder)
    controlnet = tiny_controlnet(teacher.unet)
    controlnet.save_pretrained(folder / "controlnet_canny")
    write_curated(tmp_path)
    keys = [f"{number:04d}" for number in range(NUM_RECORDS)]
    maps = write_maps(tmp_path / "conditions", "canny", keys)
    conditions = ConditionMaps(tmp_path / "conditions", ["canny"], 64)
    opened = open_view("control_canny", teacher, folder, conditions)
    base, view = tmp_path / "cache/base/0", tmp_path / "cache/control_canny/0"
    for path in (base, view):
        path.parent.mkdir(parents=True)
    records = partial(
        iter_records, tmp_path / "curated", tmp_path / "selection", parts=[0], splits=CACHED_SPLITS
    )
    run = Run("cache_teacher", "0", tmp_path / "work")
    write_base(records, teacher, base, PLAN, run)
    write_view(opened, base, teacher, view, PLAN, Run("view", "1", tmp_path / "work"))
    cache = open_cache(tmp_path / "cache", "control_canny")
    batch = cache.samples("train").batch([0, 3])
    noisy = Diffusion.create(
        alphas_cumprod(teacher.scheduler), "v_prediction", space="native", kind="constant", gamma=1
    ).noisy(batch)
    hint = torch.from_numpy(maps[[keys.index(key) for key in batch.keys]])
    with torch.no_grad():
        down, mid = controlnet(
            noisy, batch.timesteps, batch.conditioning["text"],
            controlnet_cond=hint.permute(0, 3, 1, 2) / 255, return_dict=False,
        )  # fmt: skip
        text = batch.conditioning["text"]
        expected = teacher.unet(
            noisy, batch.timesteps, text, down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
        ).sample  # fmt: skip
    torch.testing.assert_close(batch.outputs["control_canny"], expected, rtol=1e-4, atol=1e-5)
    plain = online_output(teacher.unet)(batch, noisy)
    assert (plain - expected).abs().max() > 1e-2


def test_a_control_view_needs_maps_and_a_controlnet(tiny_teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(DistilleryError, match="control_canny needs --conditions"):
        read_maps("control_canny", None, 64)
    assert read_maps("uncond", None, 64) is None
    teacher = load_teacher(tiny_teacher, "cpu", torch.float32)
    with pytest.raises(DistilleryError, match="controlnet_depth: not found"):
        open_view("control_depth", teacher, tiny_teacher)
    with pytest.raises(DistilleryError, match="one of base, cond, uncond or control_<kind>"):
        open_view("nothing", teacher, tiny_teacher)


def test_a_part_without_records_to_train_on_is_passed_over(
    root: Path, teacher: Teacher, copied: Path, tmp_path: Path
) -> None:
    run = Run("cache_teacher/empty", "f" * 64, tmp_path / "work")
    before = {split: len(open_cache(copied, "cond").samples(split)) for split in CACHED_SPLITS}
    write_base(lambda: [], teacher, copied / "base/7", PLAN, run)
    opened = open_view("cond", teacher, root)
    write_view(opened, copied / "base/7", teacher, copied / "cond/7", PLAN, run)
    cache = open_cache(copied, "cond")
    assert {split: len(cache.samples(split)) for split in CACHED_SPLITS} == before


def test_a_cache_without_any_record_is_refused(teacher: Teacher, tmp_path: Path) -> None:
    run = Run("cache_teacher/empty", "f" * 64, tmp_path / "work")
    (tmp_path / "base").mkdir()
    write_base(lambda: [], teacher, tmp_path / "base/0", PLAN, run)
    with pytest.raises(DistilleryError, match="no record of split train or val"):
        open_cache(tmp_path)
