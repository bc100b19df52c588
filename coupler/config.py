"""Cases from TOML: read, checked before anything starts, explained key by key."""

import reprlib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from coupler.case import Case, OperatorSection, Section
from coupler.errors import ConfigError, PluginError, did_you_mean
from coupler.plugin import absolute

# Keys that name a plug-in, which may be a file.
_PLUGINS = (["kernel", "name"], ["surrogate", "name"], ["controller", "policy"], ["output", "tracker"])
# Keys that name a folder.
_FOLDERS = (["learning", "start"],)


def read_case(path: Path | str | None, overrides: Sequence[str] = ()) -> Case:
    """Read a case file and apply ``section.key=value`` overrides.

    Parameters
    ----------
    path : Path, str or None
        The TOML file; None starts from the defaults. Paths inside it are relative to its folder.
    overrides : sequence of str
        ``section.key=value`` with a TOML value; a word that is no TOML value is a string.

    Returns
    -------
    Case

    Raises
    ------
    ConfigError
        If the file is missing or no TOML, a key is unknown (the nearest one is named) or a value is wrong.

    Collective: no; every rank reads the same file and finds the same mistakes.
    """
    text = "" if path is None else _text_of(Path(path))
    data = _parse(text, path)
    folder = Path.cwd() if path is None else Path(path).resolve().parent
    given = {_apply(data, override): override for override in overrides}
    return case_from(data, folder=folder, source=_Source(None if path is None else str(path), text, given))


def case_from_text(text: str, *, folder: Path) -> Case:
    """Make a case of the text of a case file, with paths relative to a folder.

    Raises
    ------
    ConfigError
        As :func:`read_case`.
    """
    return case_from(_parse(text, "The case"), folder=folder)


@dataclass(frozen=True)
class _Source:
    """Where a case's values come from, for messages: a file's text, and overrides by key."""

    path: str | None = None
    text: str = ""
    overrides: Mapping[str, str] = field(default_factory=dict)

    def place_of(self, keys: list[str]) -> str:
        """Say where a key was given: an override, file and line, file; with a colon, or nothing."""
        for length in range(len(keys), 1, -1):
            if (key := ".".join(keys[:length])) in self.overrides:
                return f"--set {self.overrides[key]}: "
        line = _line_of(keys, self.text)
        below = [said for key, said in self.overrides.items() if key.startswith(".".join(keys) + ".")]
        if below and not line:  # a section that only an override names
            return f"--set {below[0]}: "
        return f"{self.path}:{line}: " if self.path and line else f"{self.path}: " if self.path else ""


def case_from(data: Mapping[str, Any], *, folder: Path, source: _Source = _Source()) -> Case:
    """Check plain data and make it a case; plug-ins named by file, and folders, get absolute paths from ``folder``.

    Raises
    ------
    ConfigError
        As :func:`read_case`.
    """
    try:
        case = Case.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_sentence(error.errors()[0], data, source)) from None
    kernel, surrogate, controller, output = case.kernel, case.surrogate, case.controller, case.output
    learning = case.learning
    try:
        if kernel.name is not None:
            kernel = kernel.model_copy(update={"name": absolute(kernel.name, folder)})
        surrogate = surrogate.model_copy(update={"name": absolute(surrogate.name, folder)})
        controller = controller.model_copy(update={"policy": absolute(controller.policy, folder)})
        if output.tracker is not None:
            output = output.model_copy(update={"tracker": absolute(output.tracker, folder)})
    except PluginError as error:
        raise ConfigError(str(error)) from None
    if learning.start is not None:
        learning = learning.model_copy(update={"start": str((folder / learning.start).resolve())})
    placed = {
        "kernel": kernel,
        "surrogate": surrogate,
        "controller": controller,
        "learning": learning,
        "output": output,
    }
    return case.model_copy(update=placed)


class KeyExplanation(Section):
    """One key of a case in words: what ``coupler explain`` prints."""

    key: str
    default: str
    unit: str
    meaning: str


def explain(key: str = "") -> list[KeyExplanation]:
    """Explain a key, a section, or everything: from the same models that read the case.

    Raises
    ------
    ConfigError
        If there is no such section or key.
    """
    rows = list(_explanations())
    chosen = [row for row in rows if not key or row.key == key or row.key.startswith(key + ".")]
    if not chosen:
        known = [row.key for row in rows] if "." in key else list(Case.model_fields)
        raise ConfigError(f'No case has a {"key" if "." in key else "section"} "{key}".{did_you_mean(key, known)}')
    return chosen


def _explanations() -> Iterable[KeyExplanation]:
    for section, entry in Case.model_fields.items():
        model = OperatorSection if section == "operator" else entry.annotation
        assert isinstance(model, type) and issubclass(model, Section), section
        prefix = "operator.NAME" if section == "operator" else section
        for name, item in model.model_fields.items():
            extra = item.json_schema_extra
            assert isinstance(extra, dict), name
            default = "(unset)" if item.default is None else _toml_value(item.default)
            yield KeyExplanation(
                key=f"{prefix}.{name}", default=default, unit=str(extra["unit"]), meaning=item.description or ""
            )


def _toml_value(value: Any) -> str:
    return "{}" if value == {} else tomli_w.dumps({"x": value}).removeprefix("x = ").strip()


def _text_of(path: Path) -> str:
    try:
        if path.is_file():
            return path.read_text(encoding="utf-8")
        near = (
            did_you_mean(path.name, (item.name for item in path.parent.glob("*.toml"))) if path.parent.is_dir() else ""
        )
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The case file {path} cannot be read: {error}.") from error
    raise ConfigError(f"There is no case file {path}.{near}")


def _parse(text: str, source: Path | str | None) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also whole numbers of thousands of digits, brackets without end
        raise ConfigError(f"{source} is not valid TOML: {error}.") from error


def _apply(data: dict[str, Any], override: str) -> str:
    key, separator, value = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not separator or not all(parts) or len(parts) < 2:
        raise ConfigError(f"--set {override}: write section.key=value, for example --set run.steps=10.")
    if not override.isascii() and override != override.encode(errors="replace").decode():
        raise ConfigError(
            f"--set {override!r} holds bytes that are no text, and a case file could not keep them: type UTF-8."
        )
    table = data
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigError(f'--set {override}: "{part}" is a value, not a section.')
    table[parts[-1]] = override_value(value.strip())
    # What is typed in a shell is relative to where that is.
    if parts in _PLUGINS and isinstance(table[parts[-1]], str):
        table[parts[-1]] = absolute(table[parts[-1]], Path.cwd())
    if parts in _FOLDERS and isinstance(table[parts[-1]], str):
        table[parts[-1]] = str(Path(table[parts[-1]]).resolve())
    return ".".join(parts)


def override_value(value: str) -> Any:
    """Read the right-hand side of ``--set``: a TOML value, and a word that is none is a string."""
    try:
        read = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError):
        return value
    return read["value"] if len(read) == 1 else value


def _sentence(error: ErrorDetails, data: Mapping[str, Any], source: _Source) -> str:
    keys, value = _found(error["loc"], data)
    where, key = source.place_of(keys), ".".join(keys)
    if error["type"] == "extra_forbidden":
        kind = "section" if len(keys) == 1 else "key"
        return f'{where}there is no {kind} "{key}".{did_you_mean(keys[-1], _known(keys[:-1]))}'
    if error["type"] == "value_error":
        return f"{where}{error['ctx']['error']}."
    said = error["msg"][0].lower() + error["msg"][1:]
    return f"{where}{key} = {reprlib.repr(value)}: {said}. `coupler explain {_explained(keys)}` says what it means."


def _found(place: tuple[int | str, ...], data: Mapping[str, Any]) -> tuple[list[str], Any]:
    """Give the keys that lead to a mistake, and the value there; the place also names types and numbers in lists."""
    keys: list[str] = []
    value: Any = data
    for part in place:
        if isinstance(value, Mapping) and part in value:
            keys.append(str(part))
            value = value[part]
    return keys, value


def _known(keys: list[str]) -> list[str]:
    if not keys:
        return list(Case.model_fields)
    if keys[0] == "operator":
        return list(OperatorSection.model_fields)
    model = Case.model_fields[keys[0]].annotation
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, Section) else []


def _explained(keys: list[str]) -> str:
    if keys[0] == "operator":
        return "operator.NAME"
    return ".".join(keys[:2])


def _line_of(keys: list[str], text: str) -> int | None:
    """Line of the key in the file, or of what it is in, for messages; None if it is nowhere."""
    section, lines = "", {}
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.split("#", 1)[0].strip()
        if line.startswith("[") and line.endswith("]"):
            section = _bare(line.strip("[] "))
            lines[section] = number
        elif "=" in line:
            lines[".".join(filter(None, [section, _bare(line.partition("=")[0])]))] = number
    within = (".".join(keys[:length]) for length in range(len(keys), 0, -1))
    return next((lines[key] for key in within if key in lines), None)


def _bare(key: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in key.split("."))
