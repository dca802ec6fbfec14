"""Training data of records of which some have no condition map."""

from functools import partial

import numpy as np
import pytest
import torch

from cache_helpers import (
    NUM_RECORDS,
    PLAN,
    open_cache,
    v_teacher,
    write_cache,
    write_curated,
    write_maps,
)
from cache_helpers import run as make_run
from distillery.core.errors import DistilleryError
from distillery.data.conditions.reader import ConditionMaps
from distillery.data.loader import iter_records
from distillery.diffusion.control_adapter import CONDITIONS, TuneControl
from distillery.diffusion.control_drop import Drop
from distillery.families.control.training import _single_maps
from distillery.teacher.cache.files import CACHED_SPLITS
from distillery.teacher.cache.views import open_view
from distillery.teacher.cache.write import write_view
from distillery.train.sources import Sources
from tiny_models import tiny_controlnet

KEYS = [f"{number:04d}" for number in range(NUM_RECORDS)]
LACKING = KEYS[::3]


@pytest.fixture(scope="module")
def root(tiny_teacher, tmp_path_factory):
    """All records have edges, two thirds have depth, none has a pose."""
    folder = tmp_path_factory.mktemp("partial")
    write_curated(folder)
    teacher = v_teacher(tiny_teacher, folder / "teacher")
    tiny_controlnet(teacher.unet).save_pretrained(folder / "teacher/controlnet_depth")
    write_cache(folder, teacher, folder / "cache", views=())
    write_maps(folder / "conditions", "canny", KEYS)
    write_maps(folder / "conditions", "depth", [key for key in KEYS if key not in LACKING])
    write_maps(folder / "conditions", "pose", KEYS[3:4])  # a test record's
    return folder


def data_of(root, kinds, **options):
    sources = Sources(root / "teacher", root / "cache/base", "x", conditions=root / "conditions")
    return sources.data(sources.cache(), kinds, **options)


def all_of(samples):
    return samples.batch(np.arange(len(samples)))


def test_a_controlnet_is_distilled_from_the_records_that_have_its_map(root):
    whole, some = data_of(root, ["depth"]), data_of(root, ["depth"], only_with_maps=True)
    keys = all_of(some.train).keys
    assert set(keys) == set(all_of(whole.train).keys) - set(LACKING)
    assert 0 < len(keys) < len(whole.train)
    np.testing.assert_array_equal(
        all_of(some.train).latents,
        all_of(whole.train).latents[[k in keys for k in all_of(whole.train).keys]],
    )
    with pytest.raises(DistilleryError, match="none of 9 records to train on has a pose map"):
        data_of(root, ["canny", "pose"])


def test_a_map_that_is_not_there_is_a_dropped_condition(root):
    batch = all_of(data_of(root, ("canny", "depth")).train)
    lacks = torch.tensor([key in LACKING for key in batch.keys])
    assert torch.equal(batch.has_map["depth"], ~lacks)
    assert not batch.conditions["depth"][lacks].any()
    assert batch.conditions["depth"][~lacks].flatten(1).any(1).all()
    assert all_of(data_of(root, ["canny"]).train).has_map == {}  # as where all have theirs
    asked = []

    class Probe(TuneControl):
        def _residuals(self, model, noisy, batch, kept):
            asked.append(kept)
            raise InterruptedError

    diffusion = Sources(root / "teacher", root / "cache/base", "x").diffusion("constant", 1.0)
    keep_all = Drop(0.0, 1.0, 0.0, 0.0)
    tune = Probe(diffusion, None, ("canny", "depth"), batch.conditioning, keep_all)
    prepared = tune.prepare(batch)
    assert prepared.drawn[CONDITIONS].all()
    with pytest.raises(InterruptedError):
        tune(torch.nn.Identity().train(), prepared)
    assert torch.equal(asked[0], torch.stack([torch.ones_like(lacks), ~lacks], 1))
    single = _single_maps(("canny", "depth"), batch)
    turns = [key for i, key in enumerate(batch.keys) if not (i % 2 and key in LACKING)]
    assert len(single) == len(turns) < len(batch.keys)
    assert single.flatten(1).any(1).all()


def test_the_teacher_is_not_asked_about_records_without_a_map(root, tmp_path):
    teacher = v_teacher(root / "teacher", tmp_path / "teacher")
    maps = ConditionMaps(root / "conditions", ["depth"], 64)
    view = open_view("control_depth", teacher, root / "teacher", maps)
    for part in (0, 1):
        base, out = root / f"cache/base/{part}", tmp_path / f"cache/control_depth/{part}"
        out.parent.mkdir(parents=True, exist_ok=True)
        write_view(view, base, teacher, out, PLAN, make_run(tmp_path, f"view/{part}"))
    (tmp_path / "cache/base").symlink_to(root / "cache/base")
    batch = all_of(open_cache(tmp_path / "cache", "control_depth").samples("train"))
    asked = batch.outputs["control_depth"].flatten(1).any(1)
    assert torch.equal(asked, torch.tensor([key not in LACKING for key in batch.keys]))
    read = partial(iter_records, root / "curated", root / "selection", splits=CACHED_SPLITS)
    assert {r.key for r in read()} > set(batch.keys) & set(LACKING)
