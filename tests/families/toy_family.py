"""All that a person writes to add a family of students: the files, and what goes where.

The family is a toy: `toy/copy` is the teacher's own U-Net with rounded weights. Everything else,
rules for Snakemake, pages, cards, sizes and profiles, follows from these files; then
`python workflow/sync.py` writes the generated ones.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Edit:
    """A new file, or text that is put before the line that begins with `before`.

    `why` says what the file holds of a family.
    """

    file: str
    why: str
    text: str
    before: str = ""

    def apply(self, root: Path) -> None:
        """Make the edit in a copy of the repository."""
        path = root / self.file
        if not self.before:
            assert not path.exists(), self.file
            path.write_text(self.text)
            return
        lines = path.read_text().splitlines(keepends=True)
        place = next(i for i, line in enumerate(lines) if line.startswith(self.before))
        path.write_text("".join([*lines[:place], self.text, *lines[place:]]))


FAMILY = '''"""Toy: the teacher's U-Net with rounded weights."""

from distillery.families.base import Family, Prediction
from distillery.families.facts import Facts, Shown, Sizes, Texts
from distillery.families.unet import UNET


class _Toy(Family):
    def load(self, name, folders, device, dtype):
        return UNET.load(name, folders, device, dtype)

    def profiled(self, folders, teacher):
        return UNET.profiled(folders, teacher)


def _size(name, variant, section, known):
    unet = known.backbone("teacher").requires_grad_(True)
    return known.sized(f"toy/{name}", "U-Net alone", {"unet": unet})


def _snippet(model, settings):
    from distillery.families.snippets import program

    return program([f'unet = load_unet(Path("models/{model}"))'], "unet=unet")


TOY = _Toy(
    name="toy",
    stage="distill_toy",
    variants_key="distill_toy.variants",
    prediction=Prediction(),
)
FACTS = Facts(
    sizes=Sizes(_size),
    shown=Shown(
        teacher="teacher/guided",
        students=("toy/copy",),
        qualities=("reader_shape", "kid"),
        costs=("parameters_unet",),
    ),
    texts=Texts(
        title="A rounded U-Net",
        lede="The teacher's U-Net with fewer decimal digits.",
        menu="Toy",
        labels={"copy": "Rounded copy"},
        snippet=_snippet,
    ),
)
'''
STAGE = '''"""Stage `distill_toy`: the teacher in, a copy of its U-Net with rounded weights out."""

from distillery.core.run import Run
from distillery.families.description import Description, base_of, write_description
from distillery.models.export import save_model
from distillery.models.load import load_unet
from distillery.params import Params
from distillery.stage import In, Out, stage


@stage(reads=["distill_toy.variants.{variant}"])
def distill_toy(params: Params, run: Run, variant: str, teacher: In, model: Out) -> None:
    """Round every weight to the variant's number of decimal digits."""
    unet = load_unet(teacher)
    for parameter in unet.parameters():
        parameter.data = parameter.data.round(decimals=params.distill_toy.variants[variant].digits)
    save_model(unet, model)
    bases = {"teacher": base_of(teacher, model)}
    write_description(model, Description("toy", variant, bases))


if __name__ == "__main__":
    distill_toy.main()
'''
SECTION = '''"""The section distill_toy of params.yaml: rounded copies of the teacher's U-Net."""

from distillery.params.base import Frozen, Name, Positive


class ToyVariant(Frozen):
    """One rounded copy."""

    digits: Positive
    """Decimal digits that are kept of each weight."""


class DistillToy(Frozen):
    """Rounded copies of the teacher's U-Net."""

    variants: dict[Name, ToyVariant]
    """Students of this family by name; {} leaves the family out."""
'''
DVC = """  distill_toy:
    foreach: ${distill_toy.variants}
    do:
      cmd: >-
        PYTHONPATH=src python -m distillery.stages.distill_toy --params params.yaml --variant ${key}
        --teacher ${paths.teacher} --model ${paths.models}/toy/${key}
      deps:
        - ${paths.teacher}
      outs:
        - ${paths.models}/toy/${key}
  generate_toy:
    foreach: ${distill_toy.variants}
    do:
      cmd: >-
        PYTHONPATH=src python -m distillery.stages.generate --params params.yaml
        --variant toy/${key} --teacher ${paths.teacher} --model ${paths.models}/toy/${key}
        --curated ${paths.curated} --selection ${paths.selection}
        --samples ${paths.samples}/toy/${key}
      deps:
        - ${paths.teacher}
        - ${paths.models}/toy/${key}
        - ${paths.curated}
        - ${paths.selection}
      outs:
        - ${paths.samples}/toy/${key}
  evaluate_toy:
    foreach: ${distill_toy.variants}
    do:
      cmd: >-
        PYTHONPATH=src python -m distillery.stages.evaluate --params params.yaml
        --variant toy/${key} --samples ${paths.samples}/toy/${key}
        --reference ${paths.samples}/teacher/guided --curated ${paths.curated}
        --selection ${paths.selection} --teacher ${paths.teacher}
        --model ${paths.models}/toy/${key} --metrics ${paths.metrics}/toy/${key}.json
      deps:
        - ${paths.samples}/toy/${key}
        - ${paths.samples}/teacher/guided
        - ${paths.curated}
        - ${paths.selection}
        - ${paths.teacher}
        - ${paths.models}/toy/${key}
      outs:
        - ${paths.metrics}/toy/${key}.json
"""
EDITS = (
    Edit("src/distillery/families/toy.py", "what the family is", FAMILY),
    Edit(
        "src/distillery/families/__init__.py", "its place in the registry",
        "from distillery.families.toy import TOY\n", "from distillery.families.unet import",
    ),
    Edit(
        "src/distillery/families/__init__.py", "its place in the registry",
        "    TOY,\n", ")",
    ),
    Edit("src/distillery/stages/distill_toy.py", "how its students are trained", STAGE),
    Edit("src/distillery/params/distill_toy.py", "what a user can set", SECTION),
    Edit(
        "src/distillery/params/model.py", "that section among the others",
        "from distillery.params.distill_toy import DistillToy\n",
        "from distillery.params.distill_unet import",
    ),
    Edit(
        "src/distillery/params/model.py", "that section among the others",
        '    distill_toy: DistillToy\n    """How rounded copies are made."""\n',
        "    generate: Generate",
    ),
    Edit(
        "params.yaml", "its students",
        "distill_toy:\n  variants:\n    copy: {digits: 3}\n\n", "generate:",
    ),
    Edit("dvc.yaml", "its stages for DVC", DVC, "  profile:"),
)  # fmt: skip
