"""The README's commands are what CI runs, and its links lead somewhere."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer

from distillery.cli import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
INSTALL = (
    "python -m venv .venv && . .venv/bin/activate && "
    "pip install -c constraints.txt -e '.[dev]' && snakemake --cores 8 all"
)


def test_readme_has_the_two_commands() -> None:
    assert re.findall(r"^```sh\n(.*?)\n```$", README, re.M | re.S) == [INSTALL, "pytest"]


def test_ci_runs_the_readmes_commands() -> None:
    done = subprocess.run([ROOT / ".ci/run", "--show"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[:2] == [INSTALL, "pytest"]
    assert ".ci/run" in (ROOT / ".github/workflows/ci.yml").read_text()


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def _typed(text: str) -> list[list[str]]:
    """The words after `distillery` of each call in a page, but those with `...` in them."""
    text = text.replace("\\\n", " ")
    lines = re.findall(r"^(?:\$ |    )(.*distillery .*)$", text, flags=re.M)
    calls = [call.strip() for line in lines for call in re.split(r"&&|[|>]", line.split(" #")[0])]
    return [shlex.split(c)[1:] for c in calls if c.startswith("distillery ") and "..." not in c]


def test_calls_in_pages_have_options_that_exist() -> None:
    """Their words are read as those of a terminal; nothing is run."""
    commands, seen = typer.main.get_command(app).commands, set()
    pages = [README, *(path.read_text(encoding="utf-8") for path in ROOT.glob("docs/**/*.md"))]
    for name, *words in [call for page in pages for call in _typed(page)]:
        with commands[name].make_context(name, words):
            seen.add(name)
    assert seen >= {"plan", "use", "generate", "export", "evaluate", "compare", "lora-transfer"}


def test_constraints_are_names_and_versions() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.!]+", line) for line in lines)
    names = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    wanted = re.findall(r'^\s+"([A-Za-z0-9-]+)>=', (ROOT / "pyproject.toml").read_text(), re.M)
    assert {name.lower() for name in wanted} <= names


def test_readme_example_names_what_exists() -> None:
    import ast

    code = re.search(r"^```python\n(.*?)^```$", README, re.M | re.S).group(1)
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("distillery"):
            module = __import__(node.module, fromlist=["_"])
            assert all(hasattr(module, alias.name) for alias in node.names)
