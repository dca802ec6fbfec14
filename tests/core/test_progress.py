"""Bars where nothing can be redrawn: few whole lines, and no long silence."""

import time

import pytest

from distillery.core import progress
from distillery.core.progress import bar, count, counting


@pytest.fixture
def lines(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    """Reads the lines printed so far; the intervals are short."""
    monkeypatch.setattr(progress, "LINE_INTERVAL_S", 0.02)
    monkeypatch.setattr(progress, "SILENCE_S", 60.0)
    return lambda: capsys.readouterr().err.splitlines()


def test_a_short_work_is_one_line(lines, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(progress, "LINE_INTERVAL_S", 10.0)
    with bar(8, "generate/x", unit="image") as shown:
        for _ in range(8):
            shown.update()
    (line,) = lines()
    assert line.startswith("generate/x: 100% 8/8 images [00:00<")


def test_long_work_has_a_line_at_every_tenth_and_the_last_is_not_said_twice(lines):
    with bar(1000, "x", unit="step") as shown:
        for _ in range(50):
            shown.update(20)
            time.sleep(0.01)
    said = [line.split()[1] for line in lines()]
    assert len(said) == len(set(said)) <= 12
    assert said[-1] == "100%"
    assert len(said) > 4


def test_an_interrupted_bar_says_where_it_stopped(lines):
    def interrupted() -> None:
        with bar(8, "x", unit="image") as shown:
            shown.update(3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert lines()[-1].startswith("x:  38% 3/8 images")


def test_no_long_silence_where_nothing_moves(lines, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(progress, "SILENCE_S", 0.03)
    with bar(8, "x", unit="image"):
        time.sleep(0.4)
        assert len(lines()) > 2
    assert len(lines()) <= 1


def test_an_unknown_number_has_its_unit_too(lines):
    with bar(None, "ingest", unit="image") as shown:
        shown.update(12)
    (line,) = lines()
    assert line.startswith("ingest: 12 images [00:00")


def test_what_is_counted_deep_inside_moves_the_bar(lines):
    count(1)  # nobody counts
    with bar(8, "x", unit="step") as shown, counting(shown):
        count(3)
        count(5)
    count(1)
    (line,) = lines()
    assert line.startswith("x: 100% 8/8 steps")
