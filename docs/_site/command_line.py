"""The reference of the command line and of the case, made of what `--help` and `coupler explain` are made of."""

from collections.abc import Iterable
from typing import Any

import typer

from coupler.case import Case
from coupler.cli import app as command_line
from coupler.config import explain

PAGE = "reference/command-line"


def commands() -> str:
    """Describe every command: what it does, its arguments and options."""
    group: Any = typer.main.get_command(command_line)
    return "\n".join(_command(name, command) for name, command in group.commands.items())


def keys() -> str:
    """List every key of a case, section by section."""
    return "\n".join(_section(name, field.description or "") for name, field in Case.model_fields.items())


def _command(name: str, command: Any) -> str:
    rows = [(_cell(_words(one)), _cell(getattr(one, "help", None) or "")) for one in command.params]
    return f"## `coupler {name}`\n\n{command.help}\n\n" + _table(("", ""), rows)


def _words(parameter: Any) -> str:
    """Write an argument or option as it is typed."""
    option = parameter.param_type_name == "option"
    value = parameter.metavar or parameter.name.upper()
    if not option:
        return f"`{value}`"
    return f"`{'/'.join(parameter.opts)}{'' if parameter.is_flag else ' ' + value}`"


def _section(name: str, meaning: str) -> str:
    found = explain(_prefix(name))
    rows = [(f"`{row.key}`", f"`{_cell(row.default)}`", _cell(row.unit), _cell(row.meaning)) for row in found]
    return f"## `[{name}]`\n\n{meaning}\n\n" + _table(("key", "default", "unit", "meaning"), rows)


def _prefix(section: str) -> str:
    return "operator.NAME" if section == "operator" else section


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _read(app: Any, docname: str, source: list[str]) -> None:
    if docname == PAGE:
        source[0] = source[0].replace("<!-- commands -->", commands()).replace("<!-- keys -->", keys())


def setup(app: Any) -> None:
    """Fill the page when it is read."""
    app.connect("source-read", _read)
