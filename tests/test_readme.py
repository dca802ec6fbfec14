"""The README's commands are what CI runs, and its links lead somewhere."""

import re
import subprocess
from pathlib import Path

import pytest

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
