"""One HTML file that needs nothing else: no network, no folder beside it.

In: what the other modules of this package made of a run. Out: HTML text. The page forbids itself
any request (content security policy), and works without a mouse and without colour.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from distillery.families import STUDENTS
from distillery.metrics.catalog import label_of
from distillery.report import story
from distillery.report.templating import environment

_HERE = Path(__file__).parent


def render(context: Mapping[str, Any]) -> str:
    """The page as text; a name that the template lacks is an error, not a blank."""
    page = environment(autoescape=True)
    page.filters |= {
        "number": story.number,
        "estimate": story.estimate,
        "interval": story.interval,
        "si": story.si,
        "difference": _difference,
        "svg": Markup,
        "share": _share,
        "cost": lambda name, value: story.pretty(name, {"value": value}),
        "metric_name": label_of,
    }
    assets = {
        "nav_names": {name: family.texts.menu for name, family in STUDENTS.items()},
        "style": Markup((_HERE / "style.css").read_text(encoding="utf-8")),
        "script": Markup((_HERE / "script.js").read_text(encoding="utf-8")),
        "gallery_json": Markup(_json_for_html(context["gallery"])),
    }
    return page.get_template("index.html").render(**context, **assets)


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
