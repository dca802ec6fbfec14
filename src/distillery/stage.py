"""A typed function becomes the command `python -m distillery.stages.<verb>`.

    @stage(reads=["seed", "data", "curate"])
    def curate(params: Params, run: Run, part: int, raw: In, curated: Out) -> None: ...

The command gets `--params FILE` and one option per further argument. `In` paths must exist and fit
together (`In | None = None`: where given); of a folder of models or parts it sees those that the
params name. Each `Out` is a path beside the final name, published with a manifest when the function
returns (under torchrun: by the main process). What the function may read of the params is what
`reads` names, at any depth: it is what both front ends watch, and what the fingerprint covers. This
module knows nothing of Snakemake or DVC.
"""

import argparse
import contextlib
import gc
import inspect
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from distillery.core import artifacts, interrupts, publishing, weights
from distillery.core.code.libraries import library_versions
from distillery.core.code.lock import current_code
from distillery.core.errors import DistilleryError, refusals
from distillery.core.log import log_path, log_to
from distillery.core.run import Run, record_run
from distillery.core.threads import set_threads
from distillery.core.view import restrict
from distillery.core.work import alone, find_work
from distillery.params import Params, load_params, select
from distillery.params.leftovers import leftovers, without

__computes__ = False  # what it sets that matters is in core

In = Annotated[Path, "input"]
Out = Annotated[Path, "output"]
_INPUTS = (In, In | None)
_RESERVED = ("params", "run")


@dataclass(frozen=True)
class Stage:
    """A stage: its function, the params it reads and what its command line takes."""

    name: str
    function: Callable[..., None]
    reads: tuple[str, ...]
    unrecorded: tuple[str, ...]
    arguments: dict[str, Any]

    def inputs(self) -> list[str]:
        """Names of the arguments that are input paths."""
        return [name for name, kind in self.arguments.items() if kind in _INPUTS]

    def outputs(self) -> list[str]:
        """Names of the arguments that are output paths."""
        return [name for name, kind in self.arguments.items() if kind == Out]

    def selectors(self) -> list[str]:
        """Names of the other arguments: part, variant, view."""
        return [n for n in self.arguments if n not in self.inputs() + self.outputs()]

    def reads_for(self, **selected: Any) -> list[str]:
        """Dotted params keys, with `{variant}` and the like filled in; `?`: as in `select`."""
        return [key.format(**selected) for key in self.reads]

    def label(self, **selected: Any) -> str:
        """Name of one artefact of this stage: `curate/0`, `distill_unet/elr`."""
        return "/".join([self.name, *(str(selected[name]) for name in self.selectors())])

    def main(self, argv: Sequence[str] | None = None) -> None:
        """Run as a command; bad input is one line on standard error and exit code 2."""
        gc.freeze()  # what was imported stays: no search for garbage need look at it, also at exit
        gc.enable()  # stages/__init__.py says why it may be off
        values = vars(self._parser().parse_args(argv))
        params_file = values.pop("params")
        try:
            with interrupts.as_errors():
                params = load_params(params_file)
                label = self.label(**{name: values[name] for name in self.selectors()})
                work = Path(params.paths.work)
                with publishing.room_for(work), log_to(log_path(work, label), label), refusals():
                    self(params, **values)
        except DistilleryError as error:
            sys.exit(_fail(self.name, error))
        except (KeyboardInterrupt, interrupts.Interrupted) as error:
            sys.exit(interrupts.report(self.name, error))

    def _parser(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(
            prog=f"python -m distillery.stages.{self.name}",
            description=inspect.getdoc(self.function),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("--params", type=Path, required=True, metavar="FILE")
        for name, kind in self.arguments.items():
            is_path = kind in (*_INPUTS, Out)
            required = kind != In | None
            parser.add_argument(f"--{name}", type=Path if is_path else kind, required=required)
        return parser

    def __call__(self, params: Params, **arguments: Any) -> None:
        """Run the stage, publish its outputs and record the run; wait if another process does."""
        selected = {name: arguments[name] for name in self.selectors()}
        given = [name for name in self.inputs() if arguments.get(name) is not None]
        inputs = {name: Path(arguments[name]) for name in given}
        label = self.label(**selected)
        _require(inputs, label)
        is_main = _is_main_process()
        with (
            alone(Path(params.paths.work), label) if is_main else contextlib.nullcontext(),
            without(leftovers(params), inputs, label) as seen,
        ):
            self._make(params, label, selected, seen, arguments)

    def _make(
        self, params: Params, label: str, selected: dict, inputs: dict[str, Path], arguments: dict
    ) -> None:
        ancestors = artifacts.merge_ancestors(inputs)
        recipe = self._recipe(params, selected, inputs)
        work_root = Path(params.paths.work)
        weights.remember_in(work_root / "checked")
        task, made_by = _task_and_code(recipe)
        work = find_work(work_root, label, task, made_by)
        if work.begun_with:
            recipe["begun_with"] = work.begun_with
        run = Run(label, artifacts.hash_json(recipe), work_root, work.folder, made_by)
        set_threads(params.num_threads)
        started = time.monotonic()
        print(f"{label}: started", file=sys.stderr)
        outputs = self._execute(params, run, selected, inputs, arguments, (recipe, ancestors))
        work.finish()
        seconds = time.monotonic() - started
        record = record_run(run, seconds=seconds, outputs=outputs, params=recipe["params"])
        print(
            f"{label}: done in {record['seconds']:.1f} s -> {', '.join(map(str, outputs))}",
            file=sys.stderr,
        )

    def _recipe(self, params: Params, selected: dict, inputs: dict[str, Path]) -> dict[str, Any]:
        """What the artefact is made of; its hash is the fingerprint."""
        code = current_code(self.name)
        return {
            "stage": self.name,
            "selected": {name: str(value) for name, value in selected.items()},
            "inputs": {name: artifacts.content_of(path) for name, path in inputs.items()},
            "params": select(params, self.reads_for(**selected)),
            "code": code.total,
            "libraries": library_versions(code.libraries),
            "schema": artifacts.SCHEMA_VERSION,
        }

    def _execute(
        self, params: Params, run: Run, selected: dict, inputs: dict, arguments: dict, made: tuple
    ) -> list[Path]:
        """Call the function on partial paths; publish all of them once it has returned."""
        finals = {name: Path(arguments[name]) for name in self.outputs()}
        declared = [*self.reads, *self.unrecorded]
        view = restrict(params, [key.rstrip("?").format(**selected) for key in declared])
        publish = publishing.publish if _is_main_process() else _discard
        with contextlib.ExitStack() as stack:
            partials = {n: stack.enter_context(publish(f)) for n, f in finals.items()}
            self.function(params=view, run=run, **selected, **inputs, **partials)
            for partial in partials.values():
                if partial.is_dir():
                    artifacts.write_manifest(partial, run.label, *made)
        return list(finals.values())


def stage(
    reads: Sequence[str], unrecorded: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Stage]:
    """Decorator: see the module's docstring. `reads` are dotted keys of params.yaml.

    `unrecorded` are keys that it reads too and its artefact does not depend on: budgets, patience.
    """

    def wrap(function: Callable[..., None]) -> Stage:
        hints = get_type_hints(function, include_extras=True)
        arguments = {
            name: hints[name]
            for name in inspect.signature(function).parameters
            if name not in _RESERVED
        }
        return Stage(function.__name__, function, tuple(reads), tuple(unrecorded), arguments)

    return wrap


def _task_and_code(recipe: dict[str, Any]) -> tuple[str, str]:
    """What is to be made, and what makes it, as hashes."""
    makers = {"code", "libraries", "schema"}
    task = {key: value for key, value in recipe.items() if key not in makers}
    return artifacts.hash_json(task), artifacts.hash_json({key: recipe[key] for key in makers})


def _require(inputs: dict[str, Path], label: str) -> None:
    for name, path in inputs.items():
        if not path.exists():
            raise DistilleryError(f"{label}: --{name} {path}: not found; run its stage first")


def _is_main_process() -> bool:
    """False in the further processes that torchrun starts."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def _discard(final: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / final.name


def _fail(name: str, error: DistilleryError) -> int:
    for line in str(error).splitlines():
        print(f"{name}: {line}", file=sys.stderr)
    return 2
