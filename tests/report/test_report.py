import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_run import make_run, png

from distillery.report.build import Folders, build_report
from distillery.report.figures import spread
from distillery.report.pictures import data_uri, read_rejected

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def _build(folders: Folders, reports: Path) -> str:
    build_report(
        folders, reports, title="Test", source="scenes", seeds=[0], num_gallery_samples=9,
        facts=[("data", "scenes")], times={"ingest": "1.0 s"},
    )  # fmt: skip
    return (reports / "index.html").read_text()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def reports(folders: Folders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    reports = tmp_path_factory.mktemp("page") / "reports"
    _build(folders, reports)
    return reports


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.ids: set[str] = set()
        self.images_without_alt = 0

    def handle_starttag(self, tag: str, attrs: list) -> None:
        values = dict(attrs)
        self.targets += [values[name] for name in ("href", "src") if values.get(name)]
        self.ids.add(values.get("id") or "")
        self.images_without_alt += tag == "img" and not values.get("alt")


def test_the_page_needs_nothing_from_outside(reports: Path):
    page = (reports / "index.html").read_text()
    links = _Links()
    links.feed(page)
    assert links.targets
    assert all(target.startswith(("data:", "#")) for target in links.targets)
    assert {t[1:] for t in links.targets if t.startswith("#")} <= links.ids
    assert links.images_without_alt == 0
    assert "@import" not in page
    assert "url(http" not in page
    assert "default-src 'none'" in page


def test_the_report_is_complete_and_small(reports: Path):
    made = {p.relative_to(reports).as_posix() for p in reports.rglob("*") if p.is_file()}
    tables = {f"tables/{name}.csv" for name in ("elr_table1", "parameters", "speed")}
    assert made == {"index.html", "claims.json", *tables}
    assert (reports / "index.html").stat().st_size < 4_000_000
    assert len(json.loads((reports / "claims.json").read_text())) >= 14


def test_the_same_run_gives_the_same_bytes(folders: Folders, reports: Path, tmp_path: Path):
    again = _build(folders, tmp_path / "again")
    assert again == (reports / "index.html").read_text()


def test_captions_can_not_break_the_page(reports: Path):
    page = (reports / "index.html").read_text()
    assert "<b>bold</b>" not in re.sub(r"<script type=.*?</script>", "", page, flags=re.DOTALL)
    data = re.search(r'id="gallery-data">(.*?)</script>', page, re.DOTALL)[1]
    prompts = json.loads(data)["prompts"]
    assert any("</script>" in prompt for prompt in prompts)


def test_a_run_with_next_to_nothing_still_has_a_page(tmp_path: Path):
    folders = make_run(tmp_path, with_committed=False)
    shutil.rmtree(folders.metrics)
    shutil.rmtree(folders.init)
    shutil.rmtree(folders.models)
    page = _build(folders, tmp_path / "reports")
    assert "No student has been evaluated yet" in page
    claims = json.loads((tmp_path / "reports" / "claims.json").read_text())
    assert {claim["verdict"] for claim in claims} == {"not measured"}


def test_rejected_examples_hide_what_must_not_be_shown(folders: Folders):
    groups = {g["reason"]: g for g in read_rejected(folders.curated, folders.selection)}
    assert groups["resolution"]["examples"][0]["image"].startswith("data:image/webp")
    assert groups["punsafe"]["examples"][0]["image"] is None
    assert groups["punsafe"]["examples"][0]["withheld"]
    assert groups["unreadable"]["examples"][0]["image"] is None
    assert groups["near_duplicate"]["examples"][0]["detail"] == "same as k1"


def test_large_images_are_embedded_small():
    assert data_uri(png((1, 2, 3))).startswith("data:image/png")
    large = data_uri(png((1, 2, 3), 1024))
    assert large.startswith("data:image/webp")
    assert len(large) < 20_000


def test_labels_keep_their_order_and_distance():
    placed = spread([5.0, 0.0, 0.5, 40.0], 10)
    assert placed[3] == 40
    low, middle, high = sorted(placed[:3])
    assert (middle - low, high - middle) == (10, 10)
    assert placed[1] < placed[2] < placed[0]


@pytest.fixture(scope="session")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    return found


def _browse(browser: str, page: Path, profile: Path, *options: str) -> subprocess.CompletedProcess:
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--disable-background-networking", "--disable-dev-shm-usage", "--enable-logging=stderr",
        f"--user-data-dir={profile}", *options, page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("width_px", [390, 1440])
def test_the_page_works_in_a_browser(browser: str, reports: Path, tmp_path: Path, width_px: int):
    probe = tmp_path / "index.html"
    script = (
        "<script>addEventListener('load', () => { const d = document.documentElement;"
        "document.title = JSON.stringify({overflow: d.scrollWidth - innerWidth,"
        "rows: document.querySelectorAll('#gallery-rows .row').length,"
        "plots: document.querySelectorAll('.plot[data-plot]:not(.hidden)').length,"
        "broken: [...document.images].filter((i) => i.complete && !i.naturalWidth).length}); });"
        "</script></body>"
    )
    page = (reports / "index.html").read_text()
    probe.write_text(page.replace("</body>", script))
    done = _browse(
        browser, probe, tmp_path / "profile", f"--window-size={width_px},2000", "--dump-dom"
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    state = json.loads(re.search(r"<title>(.*?)</title>", done.stdout)[1].replace("&quot;", '"'))
    assert state == {"overflow": 0, "rows": 8, "plots": 1, "broken": 0}
