"""The page in a real browser; nothing is installed for it."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from fake_run import make_run

from distillery.report.build import build_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
LAYOUT = """
const d = document.documentElement;
return {overflow: d.scrollWidth - innerWidth,
 rows: document.querySelectorAll('#gallery-rows .row').length,
 plots: document.querySelectorAll('.plot[data-plot]:not(.hidden)').length,
 broken: [...document.images].filter((i) => i.complete && !i.naturalWidth).length};
"""
# Focus and keys as a person without a mouse has them; buttons get the click that Enter makes.
KEYS = """
const press = (key) => document.activeElement.dispatchEvent(
 new KeyboardEvent('keydown', {key, bubbles: true}));
const dialog = document.getElementById('viewer');
const name = () => dialog.querySelector('strong').textContent;
const found = {reachable: [...document.querySelectorAll('.cells > *, summary, [data-move]')]
 .every((e) => e.tabIndex === 0)};
document.querySelector('#gallery-rows .cells button:nth-child(3)').click();
found.open = dialog.open;
found.inside = dialog.contains(document.activeElement);
const first = [name(), dialog.querySelector('p span').textContent];
press('ArrowRight'); found.model = name() !== first[0];
press('ArrowLeft'); found.back = name() === first[0];
press('ArrowDown'); found.prompt = dialog.querySelector('p span').textContent !== first[1];
press('ArrowUp');
press('d'); found.difference = dialog.querySelectorAll('.difference img').length + ' ' + name();
dialog.close();
const pick = (id, value) => {
 const select = document.getElementById(id);
 select.value = value;
 select.dispatchEvent(new Event('change'));
};
pick('gallery-condition', 'sketch');
found.sketch = [...document.querySelectorAll('#gallery-rows .row')].length;
pick('gallery-condition', ''); pick('gallery-prompt', '2');
found.single = document.querySelectorAll('#gallery-rows .row').length;
pick('gallery-difference', 'teacher/guided');
found.blended = document.querySelectorAll('#gallery-rows .difference').length > 0;
const family = document.querySelector('select[data-choice=family]');
family.value = 'control'; family.dispatchEvent(new Event('change'));
found.plot = document.querySelector('.plot[data-plot]:not(.hidden)').dataset.plot;
document.querySelector('button[data-verdict=fails]').click();
found.fails = [...document.querySelectorAll('.claim:not(.hidden)')]
 .every((claim) => claim.dataset.verdict === 'fails');
return found;
"""


@pytest.fixture(scope="session")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("browser")
    build_report(
        make_run(root), root / "reports", title="Test", source="scenes", seeds=[0],
        num_gallery_samples=9, facts=[("data", "scenes")], times={}, whole={},
    )  # fmt: skip
    return (root / "reports" / "index.html").read_text()


def _ask(browser: str, page: str, folder: Path, script: str, *options: str) -> dict:
    """What `script` returns in the loaded page; a message on its console fails."""
    probe = folder / "index.html"
    told = (
        "<script>addEventListener('load', () => { document.title = JSON.stringify("
        f"(() => {{ {script} }})()); }});</script></body>"
    )
    probe.write_text(page.replace("</body>", told))
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--disable-background-networking", "--disable-dev-shm-usage", "--enable-logging=stderr",
        "--no-first-run", f"--user-data-dir={folder / 'profile'}", "--dump-dom", *options,
        probe.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "CONSOLE" not in done.stderr, done.stderr
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", done.stdout)[1]))


@pytest.mark.parametrize("width_px", [390, 1440])
@pytest.mark.parametrize("scheme", [0, 1], ids=["dark", "light"])
def test_the_page_works_in_a_browser(
    browser: str, page: str, tmp_path: Path, width_px: int, scheme: int
):
    options = (f"--window-size={width_px},2000", f"--blink-settings=preferredColorScheme={scheme}")
    state = _ask(browser, page, tmp_path, LAYOUT, *options)
    assert state == {"overflow": 0, "rows": 6, "plots": 1, "broken": 0}


def test_everything_works_by_keyboard(browser: str, page: str, tmp_path: Path):
    found = _ask(browser, page, tmp_path, KEYS, "--window-size=1440,2000")
    plot, difference = found.pop("plot"), found.pop("difference")
    assert plot.split()[0] == "control"
    assert difference.startswith("2 ")
    assert " minus " in difference
    assert (found.pop("sketch"), found.pop("single")) == (3, 1)
    assert all(found.values()), found
