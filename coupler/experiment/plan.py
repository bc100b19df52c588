"""The plan of an experiment: which settings of a case are compared, read from TOML and checked before anything runs."""

import hashlib
import itertools
import json
import random
import reprlib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coupler.case import Case
from coupler.config import case_from, explain, read_case
from coupler.errors import ConfigError, did_you_mean

_NAME_DIGITS = 10
# A grid beyond this was hardly meant.
_MOST_CONFIGURATIONS = 10_000


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Range(_Part):
    """Numbers to draw from, evenly or evenly in their logarithms; whole ones where both ends are whole."""

    low: float | int
    high: float | int
    log: bool = False

    def draw(self, random_numbers: random.Random) -> float | int:
        """Draw one."""
        if self.log:
            drawn = float(np.exp(random_numbers.uniform(np.log(self.low), np.log(self.high))))
        else:
            drawn = random_numbers.uniform(self.low, self.high)
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        return round(drawn) if whole else float(f"{drawn:.6g}")


class PlanFile(_Part):
    """The keys of an experiment's file.

    ``case`` is the base, ``set`` what all configurations change in it. With ``tape``, the folder of a run with recorded
    truth, configurations are played on it; without, each is a whole run on ``ranks`` ranks. ``grid`` has the values of
    every key that is varied, all combined; with ``samples`` so many combinations are drawn instead, with ``seed``, and
    ``ranges`` may name numbers to draw as well. ``limit`` is the longest that one may take [s].
    """

    case: str
    tape: str | None = None
    operator: str | None = None
    ranks: Annotated[int, Field(ge=1)] = 1
    reference: str | None = None
    set: dict[str, Any] = {}
    grid: dict[str, list[Any]] = {}
    ranges: dict[str, Range] = {}
    samples: Annotated[int | None, Field(ge=1)] = None
    seed: int = 0
    limit: Annotated[float, Field(gt=0)] = 3600.0
    best: Literal["speedup", "loss"] = "speedup"


@dataclass(frozen=True)
class Configuration:
    """One set of settings of an experiment.

    Parameters
    ----------
    settings : mapping of str
        What it changes in the base case, ``section.key`` to value, without what all configurations change.
    case : Case
        The whole case.
    """

    settings: Mapping[str, Any]
    case: Case

    @cached_property
    def sha256(self) -> str:
        """Of the whole case."""
        return hashlib.sha256(self.case.to_toml().encode()).hexdigest()

    @property
    def name(self) -> str:
        """Name of its folder: it follows from the case, so that the same case is never done twice."""
        return self.sha256[:_NAME_DIGITS]


@dataclass(frozen=True)
class Plan:
    """What an experiment does.

    Parameters
    ----------
    file : PlanFile
        As it was written; paths in it are absolute.
    base : Case
        The case file as it is.
    configurations : tuple of Configuration
        In the order of the file; each differs from all others.
    """

    file: PlanFile
    base: Case
    configurations: tuple[Configuration, ...]


def read_plan(path: Path) -> Plan:
    """Read an experiment's file and make all of its cases.

    Parameters
    ----------
    path : Path
        The TOML file; paths in it are relative to its folder.

    Returns
    -------
    Plan

    Raises
    ------
    ConfigError
        If the file is missing or no TOML, a key is unknown, a value is wrong, or a configuration is no valid case.

    Collective: no.
    """
    file = _absolute(_checked(_parsed(path), path), path.resolve().parent)
    if not (file.grid or file.ranges):
        raise ConfigError(f"{path}: there is nothing to compare. Name keys and their values under [grid].")
    base = read_case(file.case)
    configurations = {one.name: one for one in _configurations(base, file, path)}
    return Plan(file, base, tuple(configurations.values()))


def _configurations(base: Case, file: PlanFile, path: Path) -> Iterator[Configuration]:
    for settings in _combinations(file, path):
        # Together: what all change may be no valid case without what each of them does.
        yield Configuration(settings, _changed(base, file.set | settings, path))


def _combinations(file: PlanFile, path: Path) -> Iterator[dict[str, Any]]:
    empty = [key for key, values in file.grid.items() if not values]
    if empty:
        raise ConfigError(f'{path}: grid."{empty[0]}" has no values. Give at least one, or leave the key out.')
    if file.samples is not None:
        yield from _draws(file)
        return
    if file.ranges:
        raise ConfigError(f"{path}: from [ranges] numbers are drawn. Say how many configurations: samples = 20.")
    count = int(np.prod([len(values) for values in file.grid.values()], dtype=object))
    if count > _MOST_CONFIGURATIONS:
        raise ConfigError(
            f"{path}: the values under [grid] make {count} configurations, more than {_MOST_CONFIGURATIONS}. Draw some "
            "of them: samples = 100."
        )
    for values in itertools.product(*file.grid.values()):
        yield dict(zip(file.grid, values, strict=True))


def _draws(file: PlanFile) -> Iterator[dict[str, Any]]:
    drawing = random.Random(file.seed)
    for _ in range(file.samples or 0):
        chosen = {key: drawing.choice(values) for key, values in file.grid.items()}
        yield chosen | {key: numbers.draw(drawing) for key, numbers in file.ranges.items()}


def _changed(base: Case, settings: Mapping[str, Any], path: Path) -> Case:
    data = base.model_dump(exclude_none=True)
    for key, value in settings.items():
        _put(data, key, value, path)
    try:
        return case_from(data, folder=path.resolve().parent)
    except ConfigError as error:
        shown = ", ".join(f"{key} = {reprlib.repr(value)}" for key, value in settings.items())
        raise ConfigError(f"{path}: {shown or 'the case'}: {error}") from None


def _put(data: dict[str, Any], key: str, value: Any, path: Path) -> None:
    *sections, last = key.split(".")
    if not sections:
        raise ConfigError(f'{path}: "{key}" is no key of a case.{did_you_mean(key, _case_keys())}')
    for section in sections:
        data = data.setdefault(section, {})
        if not isinstance(data, dict):
            raise ConfigError(f'{path}: "{key}" goes into "{section}", which is a value and no section.')
    data[last] = value


def _case_keys() -> list[str]:
    return [row.key for row in explain()]


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = did_you_mean(path.name, (one.name for one in path.parent.glob("*.toml"))) if path.parent.is_dir() else ""
        raise ConfigError(f"There is no experiment file {path}.{near}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"The experiment file {path} cannot be read: {error}.") from None


def _checked(data: dict[str, Any], path: Path) -> PlanFile:
    try:
        return PlanFile.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ConfigError(f'{path}: there is no key "{key}".{did_you_mean(key, PlanFile.model_fields)}') from None
        raise ConfigError(f"{path}: {key}: {first['msg'][0].lower()}{first['msg'][1:]}.") from None


def _absolute(file: PlanFile, folder: Path) -> PlanFile:
    places = {key: getattr(file, key) for key in ("case", "tape", "reference")}
    found = {key: str((folder / place).resolve()) for key, place in places.items() if place is not None}
    return file.model_copy(update=found)


def fingerprint(plan: Plan) -> str:
    """Give a hash of all of a plan's cases and of what they are run on.

    Collective: no.
    """
    text = json.dumps(plan.file.model_dump(mode="json"), sort_keys=True) + "".join(
        one.name for one in plan.configurations
    )
    return hashlib.sha256(text.encode()).hexdigest()
