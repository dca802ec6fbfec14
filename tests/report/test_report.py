import contextlib
import csv
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_run import CONTROLLED, GUIDED, MODELS, build, folders_of, make_run, png
from matplotlib.figure import Figure

from distillery.core.artifacts import hash_files, write_json
from distillery.families import FAMILIES
from distillery.report.build import Folders
from distillery.report.evidence import read_run
from distillery.report.figures_training import layer_terms
from distillery.report.gallery import family_strip, read_gallery
from distillery.report.ledger import changed
from distillery.report.pictures import data_uri, read_rejected

TABLES = (
    "elr_table1", "elr_table2", "elr_table3", "controlnet", "guidance_memory", "parameters",
    "speed", "measured", "funnel", "condition_maps",
)  # fmt: skip
PAGES = (
    "whole", "unet", "control", "controlnet", "guidance", "claims", "cost", "data", "provenance",
)  # fmt: skip

LOST = "000000003: no <kite> in the folder"


def _build(folders: Folders, reports: Path) -> str:
    """The report's first page, as text."""
    build(folders, reports)
    return (reports / "index.html").read_text()


@pytest.fixture(scope="module")
def folders(reports: Path) -> Folders:
    return folders_of(reports.parent)


@pytest.fixture
def undrawn() -> Iterator[None]:
    """Empty charts: drawing them is most of a report's time."""
    with _undrawn():
        yield


@contextlib.contextmanager
def _undrawn() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, file, **_: file.write("<svg></svg>"))
        yield


@pytest.fixture(scope="module")
def unlike(folders: Folders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run that differs in what one page or section each shows: built once."""
    root = tmp_path_factory.mktemp("unlike")
    metrics, results, conditions = (
        shutil.copytree(folder, root / folder.name)
        for folder in (folders.metrics, folders.results, folders.conditions)
    )
    _add_latency(results)
    shutil.copy(metrics / "controlnet/loha.json", metrics / "controlnet/mine.json")
    shutil.copy(metrics / "unet/svd_only.json", metrics / "unet/elr.json")
    _lose_maps(conditions)
    changed = replace(folders, metrics=metrics, results=results, conditions=conditions)
    with _undrawn():
        _build(changed, root / "reports")
    return root / "reports"


def _add_latency(results: Path) -> None:
    """The committed comparison of `scenes-latency`."""
    record = json.loads(next(results.glob("*.json")).read_text())
    timed = record["profile"]["metrics"]["unet/elr/latency_s"]
    for name, share in (("planned_75", 0.75), ("planned_50", 0.5)):
        record["metrics"][f"unet/{name}"] = record["metrics"]["unet/elr"]
        scaled = {key: timed[key] * share for key in ("value", "ci_low", "ci_high")}
        record["profile"]["metrics"][f"unet/{name}/latency_s"] = {**timed, **scaled}
    write_json(results / "2026-01-03-scenes-latency.json", {**record, "preset": "scenes-latency"})


def _lose_maps(conditions: Path) -> None:
    full, lost = {"maps": 9, "left_out": {}}, {"missing": 1, "size": 2}
    depth = {"maps": 6, "left_out": lost, "first": LOST, "resized": 4}
    for part, maps in enumerate((depth, {"maps": 1000, "left_out": {"size": 1}, "first": "7: x"})):
        write_json(conditions / str(part) / "counts.json", {"canny": full, "depth": maps})


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


def _links(page: Path) -> _Links:
    links = _Links()
    links.feed(page.read_text())
    return links


def _pages(reports: Path) -> list[Path]:
    return [reports / "index.html", *sorted((reports / "pages").glob("*.html"))]


def test_the_unet_page_shows_the_committed_comparison(unlike: Path):
    page = (unlike / "pages/unet.html").read_text()
    section = page[page.index('id="latency"') :].split("</section>")[0]
    assert "<i>scenes-latency</i>, committed on 2026-01-02, 2 cores, 3 training seeds" in section
    assert section.count("<figure") == 6  # distance, shapes, KID; of this run and of those


def test_every_link_leads_to_a_place_in_the_folder(reports: Path):
    ids = {path: _links(path).ids for path in _pages(reports)}
    for path in _pages(reports):
        data = re.search(r'id="search-data">(.*?)</script>', path.read_text(), re.DOTALL)[1]
        found = [entry["href"] for entry in json.loads(data)]
        assert len(found) > 100
        for target in (*_links(path).targets, *found):
            if target.startswith("data:"):
                continue
            file, _, anchor = target.partition("#")
            lies = (path.parent / file.partition("?")[0]).resolve() if file else path
            assert lies.is_relative_to(reports.resolve()), target
            assert lies.is_file(), target
            assert not anchor or anchor in ids[lies] | {"top"}, target


def test_every_page_is_reached_from_the_first(reports: Path):
    first = {target.partition("#")[0] for target in _links(reports / "index.html").targets}
    assert {p.relative_to(reports).as_posix() for p in _pages(reports)[1:]} <= first
    for page in _pages(reports)[1:]:
        assert "../index.html" in _links(page).targets


def test_the_pages_need_nothing_from_outside(reports: Path):
    for path in _pages(reports):
        page = path.read_text()
        assert not [t for t in _links(path).targets if t.startswith(("http", "//"))], path
        assert _links(path).images_without_alt == 0
        assert "@import" not in page
        assert "url(http" not in page
        assert "default-src 'none'" in page


def test_every_section_has_a_permalink(reports: Path):
    for path in _pages(reports):
        page = path.read_text()
        for section in re.findall(r'<section id="([\w-]+)"', page):
            assert f'<a class="anchor" href="#{section}"' in page or section == "more", section


def test_the_report_is_complete_and_small(folders: Folders, reports: Path):
    made = {p.relative_to(reports).as_posix() for p in reports.rglob("*") if p.is_file()}
    tables = {f"tables/{name}.{ending}" for name in TABLES for ending in ("csv", "json")}
    tables |= {"tables/claims.csv"}
    pages = {f"pages/{name}.html" for name in PAGES}
    students = {n for n in (*MODELS, *CONTROLLED, *GUIDED) if not n.startswith("teacher/")}
    cards = {f"cards/{name}.md" for name in students}
    trained = (path.parent for path in folders.models.glob("*/*/training.json"))
    curves = {f"plots/training/{folder.parent.name}_{folder.name}.csv" for folder in trained}
    plots = {"plots/quality.csv", *curves}
    files = {"index.html", "claims.json", "metrics.json", "params.json"}
    assert made == {*files, *pages, *plots, *tables, *cards}
    assert all(path.stat().st_size < 4_000_000 for path in _pages(reports))
    assert len(json.loads((reports / "claims.json").read_text())) >= 14


def test_the_same_run_gives_the_same_bytes(folders: Folders, reports: Path, tmp_path: Path):
    _build(folders, tmp_path / "again")
    assert hash_files(tmp_path / "again") == hash_files(reports)


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


@pytest.mark.usefixtures("undrawn")
def test_only_families_of_the_run_are_shown(folders: Folders, reports: Path, tmp_path: Path):
    def families(reports: Path) -> set[str]:
        return {path.stem for path in (reports / "pages").glob("*.html")} & set(PAGES[:5])

    assert families(reports) == set(PAGES[:5])
    some = tmp_path / "metrics"
    shutil.copytree(folders.metrics, some)
    for family in ("whole", "control", "guidance"):
        shutil.rmtree(some / family)
    page = _build(replace(folders, metrics=some), tmp_path / "reports")
    assert families(tmp_path / "reports") == {"unet", "controlnet"}
    assert "The student U-Net has 56% fewer parameters" in page


def test_times_are_those_of_this_run(folders: Folders, tmp_path: Path):
    times = {"evaluate/unet/elr": "4.2 s", "evaluate/unet/dropped": "4.3 s"}
    build(folders, tmp_path, **times)
    page = (tmp_path / "pages/provenance.html").read_text()
    assert "1.0 s" in page
    assert "4.2 s" in page
    assert "4.3 s" not in page


def test_tables_are_the_same_as_csv_and_as_json(reports: Path):
    for name in TABLES:
        with (reports / f"tables/{name}.csv").open() as file:
            rows = list(csv.DictReader(file))
        listed = json.loads((reports / f"tables/{name}.json").read_text())
        texts = [{k: "" if v is None else str(v) for k, v in row.items()} for row in listed]
        assert [sorted(row.items()) for row in rows] == [sorted(t.items()) for t in texts]
    rows = json.loads((reports / "tables/measured.json").read_text())
    assert {"unet/elr", "teacher/guided"} <= {row["model"] for row in rows}


def test_the_users_own_run_comes_first(unlike: Path):
    page = (unlike / "pages/controlnet.html").read_text()
    headings = re.findall(r"<h2>(.*?) <a", page)
    others = [heading for heading in headings if heading.startswith(("Beside", "The committed"))]
    assert len(others) == 2
    assert headings.index("This run") < min(map(headings.index, others))
    printed = page.split('id="controlnet"')[1].split("</section>")[0]
    row = printed.split('<th scope="row">mine</th>')[1].split("</tr>")[0]
    values = re.findall(r"<td data-name=[^>]*>(.*?)</td>", row, re.DOTALL)
    assert sum('title="not measured' in value for value in values) <= 1  # the parameters
    first = (unlike / "index.html").read_text().split('id="gained"')[1]
    assert "controlnet.html#controlnet-mine" in first.split("</section>")[0]


def test_verdicts_that_are_other_in_this_run_are_named(unlike: Path):
    page = (unlike / "index.html").read_text()
    claims = json.loads((unlike / "claims.json").read_text())
    names = [claim["id"] for claim in changed(claims)]
    assert "elr-beats-standard-clip" in names
    assert f"pages/claims.html#{names[0]}" in page.split('id="claims"')[1]


def test_maps_that_are_missing_are_said_first_and_counted(unlike: Path):
    page = (unlike / "index.html").read_text()
    said = "depth 4 of 1,010 (missing 1, another size 3)"
    assert f"Records left out for want of a map: {said}." in page.split('class="opening"')[0]
    data = (unlike / "pages/data.html").read_text().split('id="maps"')[1]
    row = data.split('<th scope="row">depth</th>')[1].split("</tr>")[0]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row)
    assert cells == [
        "1,010",
        "1,006",
        "1",
        "3",
        "0",
        "4",
        LOST.replace("<", "&lt;").replace(">", "&gt;"),
    ]
    listed = json.loads((unlike / "tables/condition_maps.json").read_text())
    assert listed[0] == {"kind": "canny", "records": 18, "maps": 18, "missing": 0, "size": 0,
                         "unreadable": 0, "resized": 0}  # fmt: skip


def test_no_map_is_missing_is_not_said(reports: Path):
    assert "want of a map" not in (reports / "index.html").read_text()
    assert 'id="maps"' in (reports / "pages/data.html").read_text()


def test_the_gallery_matches_prompts_conditions_and_references(folders: Folders):
    run = read_run(folders.metrics, "scenes", (0,))
    gallery = read_gallery(folders.samples, run, 6, folders.curated, folders.conditions)
    models = {model["id"]: model for model in gallery["models"]}
    assert "teacher/control_canny_offset" not in models
    assert models["control/elr"]["conditions"][:3] == ["canny", "sketch", "segmentation"]
    assert set(models["controlnet/loha"]["conditions"]) == {"canny"}
    assert set(models["guidance/lora_distill"]["conditions"]) == {""}
    assert models["reference/condition"]["conditions"] == models["control/elr"]["conditions"]
    assert all(len(model["images"]) == 6 for model in models.values())
    assert all(models["reference/real"]["images"])
    grid = [model["id"] for model in family_strip(gallery, FAMILIES["controlnet"], 3)["models"]]
    assert grid[:3] == ["condition/canny", "reference/real", "teacher/control_canny"]
    assert grid[3:] == [name for name in CONTROLLED if name.startswith("controlnet/")]


def test_the_gallery_fits_into_the_page(folders: Folders, monkeypatch: pytest.MonkeyPatch):
    run = read_run(folders.metrics, "scenes", (0,))
    whole = read_gallery(folders.samples, run, 9)
    size = sum(len(image) for model in whole["models"] for image in model["images"])
    monkeypatch.setattr("distillery.report.gallery.MAX_CHARS", size // 2)
    cut = read_gallery(folders.samples, run, 9)
    assert 3 <= len(cut["prompts"]) <= 5
    assert {len(model["images"]) for model in cut["models"]} == {len(cut["prompts"])}


def test_layer_terms_are_drawn_per_output(folders: Folders, reports: Path):
    page = (reports / "pages/controlnet.html").read_text()
    assert "layerwise distillation loss per ControlNet output" in page
    training = json.loads((folders.models / "controlnet/loha/training.json").read_text())
    assert layer_terms({"controlnet/loha": training}, None).count("<svg") == 1
    for seed in training["seeds"].values():
        for entry in (*seed["train"], *seed["val"]):
            for name in [k for k in entry if k.startswith("kd_")]:
                del entry[name]
    assert layer_terms({"controlnet/loha": training}, None) is None


def test_the_page_says_how_far_the_clip_scores_can_be_trusted(reports: Path):
    page = (reports / "pages/unet.html").read_text()
    assert "Scores of teacher_clip: linear probe for shapes 0.930, 0.9 needed to decide." in page
    card = (reports / "cards" / "unet" / "elr.md").read_text()
    assert "linear probe for shapes 0.930" in card


def test_control_stands_beside_the_uncontrolled_teacher(reports: Path):
    for name in ("control", "controlnet", "whole"):
        page = (reports / f"pages/{name}.html").read_text()
        assert '<th scope="row">Teacher, uncontrolled</th>' in page, name
    unet = (reports / "pages/unet.html").read_text().split("<main")[1].split("search-data")[0]
    assert "uncontrolled" not in unet
    assert "Edge F1" not in unet
    assert "teacher, uncontrolled: 0.12" in (reports / "pages/claims.html").read_text()


def test_model_cards_carry_data_training_and_metrics(reports: Path, tmp_path: Path):
    card = (reports / "cards" / "controlnet" / "loha.md").read_text()
    assert card.startswith("---\nlibrary_name: diffusers\nbase_model: scenes\n")
    said = ("2 of 7 images", "- near duplicate: 1", "- steps: 300", "270k", "One training seed")
    for text in (*said, "| Edge F1 | 0.620 (0.600 to 0.640) | 0.740 | 256 | 1 |"):
        assert text in card, text
    whole = (reports / "cards" / "whole" / "student.md").read_text()
    assert 'load_guidance_unet("models/guidance/lora_distill"' in whole
    for path in (reports / "cards").rglob("*.md"):
        snippet = re.search(r"```python\n(.*?)```", path.read_text(), re.DOTALL)[1]
        compile(snippet, path.name, "exec")


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
