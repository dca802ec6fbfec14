"""Commands of stages run in this process, whose errors must be one line."""

from typing import Any


def run_command(stage, arguments: list[Any], capsys) -> str:
    """The lines of an error of a stage's command, or nothing; other endings fail the test."""
    capsys.readouterr()
    try:
        stage.main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = end.code
    else:
        return ""
    lines = capsys.readouterr().err.splitlines()
    assert code == 2, lines
    return lines[-1]
