"""The page in a real browser, by its DevTools protocol; nothing is installed for it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from devtools import Page, opened

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDE = {"width_px": 1440, "scheme": "light"}
MAX_STOPS = 600
MAX_HEIGHT_PX = 8 * 900  # eight screens
HEIGHT = "document.documentElement.scrollHeight"
OVERFLOW = "document.documentElement.scrollWidth - innerWidth"
# What is wider than the window, though nothing scrolls it, or hides a part of itself.
CUT = """[...document.querySelectorAll('main *')]
 .filter((e) => e.checkVisibility() && !e.closest('svg'))
 .filter((e) => e.getBoundingClientRect().right > innerWidth + 1
  || (e.matches('.scroll') && e.scrollWidth > e.clientWidth + 1))
 .map((e) => e.outerHTML.slice(0, 150))"""
FOUND = "[...document.querySelectorAll('#found a')].map((a) => a.textContent)"
LAYOUT = """({
 overflow: document.documentElement.scrollWidth - innerWidth,
 rows: document.querySelectorAll('#gallery-rows .row').length,
 plots: document.querySelectorAll('.plot[data-plot]:not(.hidden)').length,
 broken: [...document.images].filter((i) => i.complete && !i.naturalWidth).length})"""
# What can be operated, and what of it the focus has been on since.
WATCH = """
window.operable = [...document.querySelectorAll('a[href], button, input, select, summary')]
 .filter((e) => e.checkVisibility({visibilityProperty: true}));
window.reached = new Set();
document.addEventListener('focusin', (event) => reached.add(event.target));
document.activeElement.blur();
operable.length"""
MISSED = "operable.filter((e) => !reached.has(e)).map((e) => e.outerHTML.slice(0, 200))"
VIEWER = """(() => {
 const dialog = document.getElementById('viewer');
 return {open: dialog.open, inside: dialog.contains(document.activeElement),
  model: dialog.querySelector('strong').textContent,
  prompt: dialog.querySelector('p span').textContent,
  differences: dialog.querySelectorAll('.difference img').length}; })()"""
ROWS = "document.querySelectorAll('#gallery-rows .row').length"
BLENDED = "document.querySelectorAll('#gallery-rows .difference').length"
PLOT = "document.querySelector('.plot[data-plot]:not(.hidden)').dataset.plot"
VERDICTS = """[...document.querySelectorAll('.claim:not(.hidden)')]
 .map((claim) => claim.dataset.verdict)"""


@pytest.fixture(scope="session")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    return found


@pytest.fixture(scope="module")
def url(reports: Path) -> str:
    return (reports / "index.html").as_uri()


def _all_pages(url: str) -> list[str]:
    index = Path(url.removeprefix("file://"))
    return [url, *(page.as_uri() for page in sorted((index.parent / "pages").glob("*.html")))]


@pytest.fixture(scope="module")
def tab(browser: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with opened(browser, tmp_path_factory.mktemp("chromium") / "profile") as page:
        yield page


def _walk_to(page: Page, selector: str, *held: str) -> None:
    """Press Tab until the focus is on what `selector` matches."""
    for _ in range(MAX_STOPS):
        page.press("Tab", *held)
        if page.ask(f"document.activeElement.matches({selector!r})"):
            return
    raise AssertionError(f"{MAX_STOPS} times Tab do not reach {selector}")


def _choose(page: Page, selector: str, value: str, *held: str) -> None:
    """Walk to a selection and press an arrow until it shows `value`."""
    _walk_to(page, selector, *held)
    shown = "document.activeElement.value"
    options = page.ask("[...document.activeElement.options].map((option) => option.value)")
    key = "ArrowDown" if options.index(value) > options.index(page.ask(shown)) else "ArrowUp"
    for _ in options:
        if page.ask(shown) == value:
            return
        page.press(key)
    raise AssertionError(f"{selector} shows {page.ask(shown)!r}, not {value!r}")


@pytest.mark.parametrize("width_px", [390, 1440])
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_the_page_works_in_a_browser(tab: Page, url: str, width_px: int, scheme: str):
    tab.show(url, width_px, scheme)
    assert tab.ask(f"matchMedia('(prefers-color-scheme: {scheme})').matches")
    assert tab.ask("innerWidth") == width_px
    assert tab.ask(LAYOUT) == {"overflow": 0, "rows": 4, "plots": 1, "broken": 0}
    assert tab.complaints == []


# The field at least as wide as its hint in its own font, with its paddings.
HINT = """(() => {
 const field = document.getElementById('search'), style = getComputedStyle(field);
 const pen = document.createElement('canvas').getContext('2d');
 pen.font = style.font;
 const room = field.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
 return room - pen.measureText(field.placeholder).width - 16; })()"""  # 16: the button that clears


@pytest.mark.parametrize("width_px", [390, 700, 1000, 1280])
def test_the_hint_of_the_search_fits(tab: Page, url: str, width_px: int):
    tab.show(url, width_px, "light")
    assert tab.ask(HINT) >= 0


def test_counts_of_claims_have_no_border(tab: Page, url: str):
    tab.show(url.replace("index.html", "pages/claims.html"), **WIDE)
    borders = """[...document.querySelectorAll('.counts span')]
     .map((span) => getComputedStyle(span).borderStyle)"""
    assert set(tab.ask(borders)) == {"none"}


def test_the_first_page_is_at_most_eight_screens(tab: Page, url: str):
    tab.show(url, **WIDE)
    assert tab.ask(HEIGHT) <= MAX_HEIGHT_PX


def test_no_page_is_cut_on_a_phone(tab: Page, url: str):
    for page in _all_pages(url):
        tab.show(page, 390, "light")
        tab.ask("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert tab.ask(OVERFLOW) == 0, page
        cut = [html for html in tab.ask(CUT) if "layer" not in html and "plot wide" not in html]
        assert cut == [], page
        assert tab.complaints == []


def test_a_model_is_found_and_reached_by_keyboard(tab: Page, url: str):
    tab.show(url, **WIDE)
    for key in "/", "l", "o", "h", "a":
        tab.press(key)
    assert any("controlnet/loha" in text for text in tab.ask(FOUND))
    tab.press("Enter")
    tab.loaded()
    assert tab.ask("location.href").endswith("pages/controlnet.html#controlnet-loha")
    assert tab.ask("document.querySelector(':target th').textContent") == "LoHa"
    assert tab.complaints == []


def test_a_link_to_a_claim_opens_its_group(tab: Page, url: str):
    page = url.replace("index.html", "pages/claims.html")
    tab.show(page, **WIDE)
    last = tab.ask("[...document.querySelectorAll('.claim')].at(-1).id")
    assert not tab.ask(f"document.getElementById({last!r}).checkVisibility()")
    tab.show(f"{page}?#{last}", **WIDE)
    assert tab.ask(f"document.getElementById({last!r}).checkVisibility()")
    tab.show(f"{page}?2#fails", **WIDE)
    assert set(tab.ask(VERDICTS)) == {"fails"}


def test_tab_reaches_everything_that_can_be_operated(tab: Page, url: str):
    tab.show(url, **WIDE)
    assert 50 < tab.ask(WATCH) < MAX_STOPS
    for _ in range(MAX_STOPS):
        tab.press("Tab")
        if not (missed := tab.ask(MISSED)):
            break
    assert missed == []


def test_the_viewer_works_by_keyboard(tab: Page, url: str):
    tab.show(url, **WIDE)
    _walk_to(tab, "#gallery-rows .cells button:nth-child(3)")
    tab.press("Enter")
    first = tab.ask(VIEWER)
    assert (first["open"], first["inside"], first["differences"]) == (True, True, 0)
    tab.press("ArrowRight")
    assert tab.ask(VIEWER)["model"] != first["model"]
    tab.press("ArrowLeft")
    assert tab.ask(VIEWER) == first
    tab.press("ArrowDown")
    assert tab.ask(VIEWER)["prompt"] != first["prompt"]
    tab.press("ArrowUp")
    tab.press("d")
    difference = tab.ask(VIEWER)
    assert difference["differences"] == 2
    assert difference["model"].startswith(f"{first['model']} minus ")
    for _ in range(12):  # a dialog keeps the focus to itself
        tab.press("Tab")
        assert tab.ask("document.activeElement === document.body") or tab.ask(VIEWER)["inside"]
    _walk_to(tab, "#viewer-difference")
    tab.press(" ")
    assert tab.ask(VIEWER)["model"] == first["model"]
    tab.press("Escape")
    assert not tab.ask(VIEWER)["open"]
    assert tab.ask("document.activeElement.matches('#gallery-rows .cells button:nth-child(3)')")
    assert tab.complaints == []


def test_choices_work_by_keyboard(tab: Page, url: str):
    tab.show(url, **WIDE)
    _choose(tab, "select[data-choice=family]", "control")
    assert tab.ask(PLOT).startswith("control ")
    _choose(tab, "#gallery-condition", "sketch")
    assert tab.ask(ROWS) == 3
    _choose(tab, "#gallery-difference", "teacher/guided")
    assert tab.ask(BLENDED) > 0
    _choose(tab, "#gallery-condition", "", "Shift")
    _choose(tab, "#gallery-prompt", "2", "Shift")
    assert tab.ask(ROWS) == 1
    assert tab.complaints == []
    tab.show(url.replace("index.html", "pages/claims.html"), **WIDE)
    _walk_to(tab, "button[data-verdict=fails]")
    tab.press("Enter")
    assert set(tab.ask(VERDICTS)) == {"fails"}
    assert tab.complaints == []
