import dataclasses

import pytest

from distillery.core.errors import DistilleryError
from distillery.data.curation.filters import build_filters, first_rejection
from distillery.data.curation.filters.base import Candidate
from distillery.data.curation.filters.blocklist import read_blocklists

SETTINGS = {
    "min_side_px": 48,
    "max_side_px": 1000,
    "max_aspect": 2.0,
    "max_caption_chars": 100,
    "min_caption_words": 3,
    "max_punsafe": 0.5,
    "max_pwatermark": 0.8,
    "min_aesthetic": 6.0,
    "min_similarity": 0.2,
    "stock_hosts": ["alamy.com"],
    "blocklists": [],
}
GOOD = Candidate(
    width_px=64, height_px=64, caption="a large red circle", url="https://a.org/1.png",
    sha256="a" * 64, md5="b" * 32, punsafe=0.5, pwatermark=0.8, aesthetic=6.0, similarity=0.2,
)  # fmt: skip


def reason_for(candidate=GOOD, settings=None, **changes):
    row = dataclasses.replace(candidate, **changes)
    found = first_rejection(row, build_filters(**{**SETTINGS, **(settings or {})}))
    return found and found[0]


def test_values_at_their_limits_are_kept():
    assert reason_for() is None
    assert reason_for(width_px=96, height_px=48) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"width_px": 47}, "resolution"),
        ({"width_px": 1001, "height_px": 1001}, "resolution"),
        ({"width_px": 97, "height_px": 48}, "aspect"),
        ({"punsafe": 0.51}, "punsafe"),
        ({"pwatermark": 0.81}, "pwatermark"),
        ({"aesthetic": 5.99}, "aesthetic"),
        ({"similarity": 0.19}, "similarity"),
        ({"url": "http://c8.alamy.com/x.jpg"}, "stock_host"),
        ({"url": "ALAMY.com/x.jpg"}, "stock_host"),
        ({"caption": ""}, "caption_empty"),
        ({"caption": "x" * 101}, "caption_long"),
        ({"caption": "red circle"}, "caption_short"),
        ({"caption": "Red shoes, buy now at www.shop.example"}, "caption_spam"),
        ({"caption": "IMG_2041.JPG"}, "caption_spam"),
        ({"caption": "$$$ 100 200 300 !!! 4"}, "caption_spam"),
        ({"caption": "cheap cheap cheap cheap cheap cheap watch"}, "caption_spam"),
    ],
)
def test_each_filter_names_its_reason(changes, reason):
    assert reason_for(**changes) == reason


@pytest.mark.parametrize(
    "url", ["https://notalamy.com/x", "https://alamy.com.example.org/x", "http://[bad", None]
)
def test_other_hosts_are_kept(url):
    assert reason_for(url=url) is None


@pytest.mark.parametrize(
    "caption",
    ["a dog and a cat and a bird on a wall", "ein Haus am See", "Дом у озера", "3 red apples"],
)
def test_ordinary_captions_are_kept(caption):
    assert reason_for(caption=caption) is None


def test_missing_scores_and_switched_off_filters_pass():
    names = ("punsafe", "pwatermark", "aesthetic", "similarity")
    assert reason_for(**dict.fromkeys(names)) is None
    assert reason_for(settings={"max_punsafe": None}, punsafe=1.0) is None


def test_the_first_filter_counts():
    assert reason_for(width_px=1, punsafe=1.0, caption="") == "resolution"


@pytest.mark.parametrize("entry", ["https://a.org/1.png", "A" * 64, "b" * 32])
def test_blocklist_holds_urls_and_hashes(tmp_path, entry):
    path = tmp_path / "block.txt"
    path.write_text(f"# ours\n\n {entry} \n")
    assert reason_for(settings={"blocklists": [str(path)]}) == "blocklist"


def test_missing_blocklist_is_an_error_that_names_it(tmp_path):
    with pytest.raises(DistilleryError, match=r"absent\.txt.*under blocklists"):
        read_blocklists([tmp_path / "absent.txt"])
