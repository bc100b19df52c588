"""What answers, and how: the plan of a server's models, plain data that whoever starts servers needs no torch for."""

import os
from dataclasses import dataclass
from pathlib import Path

from coupler.errors import ConfigError


@dataclass(frozen=True)
class ModelPlan:
    """What answers, and how.

    Parameters
    ----------
    operators : tuple of str
        Operator names; questions name them by index.
    columns : tuple of tuple of int
        Inputs and outputs of each.
    models : str
        Folder of the registry the versions are loaded from; every node sees it.
    device : str
        ``auto``, ``cpu`` or ``cuda:N``.
    threads : int
        Chunks computed at the same time.
    form : str
        ``surrogate.form``.
    reproducible : bool
        Whether no bit may hang on a clock or on how full the cores are, as in deterministic runs: then neither chooses
        the form or the trainer's threads.
    """

    operators: tuple[str, ...]
    columns: tuple[tuple[int, int], ...]
    models: str
    device: str
    threads: int
    form: str = "auto"
    reproducible: bool = False


@dataclass(frozen=True)
class Wanted:
    """A version that a server must have before anybody asks it.

    Parameters
    ----------
    operator, version : int
        Whose model, and which version of it.
    """

    operator: int
    version: int


def check_folder(models: Path) -> None:
    """Refuse a node that does not see the run folder.

    Raises
    ------
    ConfigError
        If it does not.
    """
    if not models.is_dir():
        raise ConfigError(
            f"{os.uname().nodename} does not see the run folder {models.parent}: samples, models and training rounds "
            "go through it, so all nodes of a run need it on a file system they share. Give one with --out."
        )
