"""`distillery demo`: models draw the same prompt side by side; the page works in a browser."""

import shutil
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from distillery.cli import main
from distillery.commands import demo, demo_page
from distillery.core.errors import DistilleryError
from distillery.families.description import Description, base_of, write_description
from distillery.models.load import load_unet
from distillery.models.lowrank.factorise import factorise_unet
from distillery.models.lowrank.ranks import plan_ranks
from project import tiny_params
from report.devtools import opened

MODELS = ["teacher/guided", "unet/elr", "teacher/control_canny"]
ALTS = "[...document.querySelectorAll('#shown img')].length"
TEXT = "document.querySelector('#shown').innerText"


@pytest.fixture(scope="module")
def project(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run as far as the demo looks."""
    root = tmp_path_factory.mktemp("demo")
    params = yaml.safe_load(tiny_params())
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.copytree(tiny_teacher, root / "models/teacher")
    unet = load_unet(tiny_teacher)
    elr = root / "models/unet/elr"
    factorise_unet(unet, plan_ranks(unet))[0].save_pretrained(elr)
    bases = {"teacher": base_of(root / "models/teacher", elr)}
    write_description(elr, Description("unet", "elr", bases))
    return root


@pytest.fixture
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    return Path("params.yaml")


def test_the_projects_models_are_known(here: Path) -> None:
    assert demo.known_models(here, []) == ["teacher/guided", "unet/elr"]
    assert demo.known_models(here, ["models/unet/elr"]) == ["models/unet/elr"]
    with pytest.raises(DistilleryError, match="a/folder: no model's folder"):
        demo.known_models(here, ["unet/elr", "a/folder"])
    with pytest.raises(DistilleryError, match="not found"):
        demo.known_models(Path("nowhere/params.yaml"), [])


def test_students_are_looked_for_where_the_params_say(here: Path, tmp_path: Path) -> None:
    params, models = yaml.safe_load(here.read_text()), tmp_path / "other"
    params["paths"] |= {"models": str(models), "teacher": str(models / "teacher")}
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(params))
    with pytest.raises(DistilleryError, match="other: no students"):
        demo.known_models(own, [])
    shutil.copytree("models", models)
    assert demo.known_models(own, []) == ["teacher/guided", "unet/elr"]


def test_models_draw_side_by_side_with_time_and_memory(here: Path) -> None:
    drawn = np.zeros((32, 32, 3), np.uint8)
    drawn[8:24, 8] = 255
    found = list(demo.draw(MODELS, "a circle", params_file=here, drawn=drawn, steps=1))
    assert [one.image.shape for one in found] == [(64, 64, 3)] * 3
    assert all(" s, " in one.caption and "GiB" in one.caption for one in found)
    assert found[1].caption.endswith("takes no map")
    without = list(demo.draw(MODELS[2:], "a circle", params_file=here, steps=1))
    assert "draw or upload a map (canny)" in without[0].caption
    with pytest.raises(DistilleryError, match="type a prompt"):
        list(demo.draw(MODELS, " ", params_file=here))


def test_what_is_drawn_becomes_a_map_on_black() -> None:
    pad = np.zeros((4, 4, 4), np.uint8)
    assert demo_page.drawn_map(None) is None
    assert demo_page.drawn_map({"composite": pad}) is None
    pad[1, 1] = (255, 255, 255, 255)
    assert demo_page.drawn_map({"composite": pad}).tolist()[1][1] == [255, 255, 255]


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server((demo_page.HOST, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(DistilleryError, match=f"--port {port}: something else answers there"):
            demo_page.show(None, port)


def test_without_gradio_the_remedy_is_said(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SystemExit) as ended:
        main(["demo"])
    assert ended.value.code == 2
    assert "pip install -c constraints.txt -e '.[demo]'" in capsys.readouterr().err


def test_the_page_draws_in_a_browser(here: Path, tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no browser")
    page = demo_page.build(MODELS[:2], here)
    _, address, _ = page.queue().launch(  # the first port that is free when it is taken
        server_name="127.0.0.1", prevent_thread_lock=True, quiet=True
    )
    try:
        with opened(browser, tmp_path / "profile") as tab:
            tab.show(address, 1440, "light")
            tab.ask(_until("document.querySelector('#go')"))
            tab.ask("document.querySelector('#go').click()")
            tab.ask(_until(f"{ALTS} >= 2"))
            assert "GiB" in tab.ask(TEXT)
    finally:
        page.close()


def _until(condition: str) -> str:
    """A promise that is kept once the condition holds."""
    look = f"if ({condition}) {{ clearInterval(timer); kept(true); }}"
    return f"new Promise((kept) => {{ const timer = setInterval(() => {{ {look} }}, 200); }})"
