"""The `distillery` command: what to run next, what models draw and cost, how good images are.

Stages are run by Snakemake or DVC, not from here. Bad input is one line on standard error and exit
code 2; `verify` ends with 1 when something is damaged.
"""

import gc
import inspect
import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from distillery import __version__
from distillery.commands.typed import judging, measuring, running
from distillery.commands.typed.exporting import export, lora_transfer
from distillery.core import interrupts
from distillery.core.errors import DistilleryError, reason_of

app = typer.Typer(
    name="distillery", add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)
_OUT_OF_MEMORY = r"can't allocate memory|[Oo]ut of memory"
_UsageError = typer.BadParameter.__bases__[0]  # click's; newer versions of typer hide click


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"distillery {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Say the version."),
    ] = False,
) -> None:
    """Smaller, faster Stable Diffusion by distillation.

    The pipeline itself runs by `snakemake --cores 8 all` or `dvc repro`.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _with_examples(text: str) -> str:
    """The help with each `Example:` on a line of its own; click joins lines without the mark."""
    return inspect.cleandoc(text).replace("\n\nExample:", "\n\n\b\nExample:")


for _command in (
    running.plan,
    running.use,
    running.verify,
    running.adopt,
    running.trust,
    running.generate,
    judging.evaluate,
    export,
    lora_transfer,
    measuring.params,
    measuring.ranks,
    measuring.latency,
    measuring.profile,
    judging.compare,
    running.demo,
):
    _name = _command.__name__.replace("_", "-")
    app.command(_name, help=_with_examples(_command.__doc__))(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    gc.set_threshold(50_000)  # most of what is made is imported and stays: search it less often
    try:
        with interrupts.as_errors():
            code = app(args=arguments, standalone_mode=False)
    except DistilleryError as error:
        sys.exit(_fail(str(error)))
    except _UsageError as error:
        said = error.format_message().rstrip(".")
        sys.exit(_fail(f"{said}. See `{_command_of(error)} --help`."))
    except OSError as error:
        sys.exit(_fail(_of_system(error)))
    except (MemoryError, RuntimeError) as error:
        if not (reason := _out_of_memory(error)):
            raise
        sys.exit(_fail(f"out of memory ({reason}); use a smaller size or batch"))
    except (KeyboardInterrupt, interrupts.Interrupted, typer.Abort) as error:
        sys.exit(interrupts.report("distillery", error))
    finally:
        gc.freeze()  # and not once more at the end
    sys.exit(code if isinstance(code, int) else 0)


def _of_system(error: OSError) -> str:
    """One line of what the system, or a library in its name, refuses."""
    if error.filename is None or error.strerror is None:
        return reason_of(error)
    return f"{os.fsdecode(error.filename)}: {error.strerror}; give another place"


def _out_of_memory(error: Exception) -> str:
    """What NumPy or torch says of it in its last sentence; empty for any other error."""
    text = str(error).strip()
    is_memory = isinstance(error, MemoryError) or re.search(_OUT_OF_MEMORY, text)
    return next(iter(text.splitlines()), "no more to be had") if is_memory else ""


def _command_of(error: Exception) -> str:
    """As a user types it: `distillery generate`."""
    context = getattr(error, "ctx", None)
    return f"{app.info.name} {context.info_name}" if context and context.parent else app.info.name


def _fail(message: str) -> int:
    for line in message.splitlines():
        print(f"distillery: {line}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
