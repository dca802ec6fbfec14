"""A page of docs/extend carried out to the letter in a copy of the repository.

In: the page. Out: the copy with its files written and its edits made, and what commands printed.
A new file is a block after "`path`, new:", an edit a diff after "`path`:".
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from project import ROOT, Project

PAGES = ROOT / "docs/extend"
_BLOCK = re.compile(r"(?:`([^`\n]+)`(, new)?:\n\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SYNC = "python workflow/sync.py"


@dataclass
class Page:
    """What a page says: new files, edits (old text, new text) by file, commands in order."""

    files: dict[str, str] = field(default_factory=dict)
    edits: list[tuple[str, str, str]] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)


def read_page(name: str) -> Page:
    """The page of docs/extend; a block that is neither file, edit nor command is an error."""
    page = Page()
    for path, is_new, language, text in _BLOCK.findall((PAGES / f"{name}.md").read_text()):
        if is_new:
            page.files[path] = text
        elif language == "diff" and path:
            page.edits += [(path, *_sides(hunk)) for hunk in re.split(r"^@@\n", text, flags=re.M)]
        elif language == "console":
            page.commands += [line.removeprefix("$ ") for line in text.splitlines()]
        else:
            raise ValueError(f"{name}.md: what is to be done with this block? {text}")
    return page


def _sides(hunk: str) -> tuple[str, str]:
    lines = hunk.splitlines(keepends=True)
    old, new = (
        "".join(line[1:] or "\n" for line in lines if line[0] in marks) for marks in (" -", " +")
    )
    return old, new


def apply(page: Page, project: Project) -> set[str]:
    """Write and edit; returns the paths of what was touched by hand."""
    for path, text in page.files.items():
        target = project.root / path
        assert not target.exists(), f"{path}: is there already"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    for path, old, new in page.edits:
        target = project.root / path
        text = target.read_text()
        assert text.count(old) == 1, f"{path}: {text.count(old)} places for\n{old}"
        target.write_text(text.replace(old, new))
    return set(page.files) | {path for path, _, _ in page.edits}


def run(page: Page, project: Project) -> dict[str, str]:
    """What each command of the page printed; a failure is an error."""
    return {command: _run(command, project) for command in page.commands}


def _run(command: str, project: Project) -> str:
    program, *arguments = command.split()
    if command == _SYNC:
        return project.run_file("workflow/sync.py")
    module = {"distillery": "distillery.cli"}.get(program, program)
    serial = ["-n0", "-p", "no:cacheprovider"] if program == "pytest" else []
    return project.run(module, *serial, *arguments)


def committed(project: Project) -> list[str]:
    """Changed files of the copy that no tool wrote."""
    generated = re.compile(r"workflow/(code|schemas)/|docs/params\.md|data/|models/|work/|\.dvc/")
    lines = project.git("status", "--porcelain", "--untracked-files=all").splitlines()
    return [line[3:] for line in lines if not generated.match(line[3:])]


def pages() -> list[str]:
    """Names of all pages."""
    return sorted(path.stem for path in Path(PAGES).glob("*.md"))
