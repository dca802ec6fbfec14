"""The report's HTML files, each of which needs nothing else: no network, no folder beside it.

In: what the other modules of this package made of a run. Out: `index.html`, `pages/*.html`. A page
forbids itself any request (content security policy), and works without a mouse and without colour.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from distillery.metrics.catalog import label_of
from distillery.report import story
from distillery.report.downloads import table_path
from distillery.report.search import slug
from distillery.report.templating import environment

_HERE = Path(__file__).parent
INDEX = "index"


@dataclass(frozen=True)
class Page:
    """One file: its name without `.html`, its heading, its name in the menu, what it is about."""

    name: str
    title: str
    menu: str
    about: str
    template: str

    @property
    def path(self) -> str:
        """From the folder of the report."""
        return f"{self.name}.html" if self.name == INDEX else f"pages/{self.name}.html"


def pages_of(families: Sequence[Mapping[str, Any]]) -> list[Page]:
    """All pages in the order of the menu."""
    return [
        Page(INDEX, "Overview", "Overview", "", "index.html"),
        *(Page(f["id"], f["title"], f["menu"], f["lede"], "family.html") for f in families),
        Page("claims", "What holds, and what does not", "Claims",
             "Every claim with its source, its numbers and its verdict.", "claims.html"),
        Page("cost", "What a model costs", "Cost",
             "Parameters, operations, time and memory, here and at full size.", "cost.html"),
        Page("data", "What the data went through", "Data",
             "How many images were kept, and what was removed for which reason.", "data.html"),
        Page("provenance", "Where this comes from", "Provenance",
             "Settings, versions, fingerprints, times, what was not measured.", "provenance.html"),
    ]  # fmt: skip


def write_pages(reports: Path, context: Mapping[str, Any]) -> None:
    """Write every page; a name that a template lacks is an error, not a blank."""
    jinja, pages = _environment(), pages_of(context["families"])
    families = {family["id"]: family for family in context["families"]}
    shared = {**context, **_assets(), "pages": pages}
    for index, page in enumerate(pages):
        near = {
            "page": page,
            "previous": pages[index - 1] if index > 1 else None,
            "next": pages[index + 1] if index + 1 < len(pages) else None,
            "family": families.get(page.name),
            "search": [{**e, "href": _from(page, e["href"])} for e in context["search"]],
        }
        path = reports / page.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(jinja.get_template(page.template).render(shared | near), encoding="utf-8")


def _from(page: Page, path: str) -> str:
    """A path of the report's folder as a link on a page."""
    return path if page.name == INDEX else f"../{path}"


def stylesheet() -> Markup:
    """The look of all pages."""
    return Markup((_HERE / "style.css").read_text(encoding="utf-8"))


def _assets() -> dict[str, Markup]:
    names = {"script": "script.js", "gallery_script": "gallery.js"}
    scripts = {key: (_HERE / name).read_text(encoding="utf-8") for key, name in names.items()}
    return {"style": stylesheet(), **{key: Markup(text) for key, text in scripts.items()}}


def _environment() -> Environment:
    jinja = environment(autoescape=True)
    jinja.filters |= {
        "number": story.number,
        "estimate": story.estimate,
        "interval": story.interval,
        "si": story.si,
        "difference": _difference,
        "svg": Markup,
        "share": _share,
        "cost": lambda name, value: story.pretty(name, {"value": value}),
        "metric_name": label_of,
        "slug": slug,
        "href": lambda target, page: _from(page, target.path),
        "table_path": table_path,
        "json": lambda value: Markup(_json_for_html(value)),
    }
    return jinja


def _difference(claim: Mapping[str, Any]) -> dict[str, float]:
    """A claim's number in the form of a metric."""
    return {"value": claim["ours"], "ci_low": claim["ci"][0], "ci_high": claim["ci"][1]}


def _share(claim: Mapping[str, Any]) -> str:
    """A reduction as a percentage, a ratio with its sign."""
    if claim.get("is_ratio"):
        return f"{story.number(claim['ours'])}×"
    return f"{claim['ours']:.1%}".replace("-", "−")


def _json_for_html(value: Any) -> str:
    """JSON that can't end the script element it stands in."""
    return json.dumps(value, ensure_ascii=False).replace("</", "<\\/").replace("<!--", "<\\!--")
