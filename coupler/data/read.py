"""Reading the samples of a run from its folder alone, without its operator."""

import re
from dataclasses import dataclass
from pathlib import Path

import h5py

from coupler.errors import CouplerError, did_you_mean
from coupler.learning.samples import COLUMNS, SampleBatch

_NAME = re.compile(r"(.+)-(\d{5,})\.h5")
# A segment may go while it is read, as trainings put what they need together.
_MOST_LOOKS = 5


@dataclass(frozen=True)
class NamedSamples:
    """Samples with the names of their columns.

    Parameters
    ----------
    operator : str
        Whose they are.
    inputs, outputs : tuple of str
        Names of the columns; those of a tile are ``FIELD.0``, ``FIELD.1`` and so on, cell by cell.
    batch : SampleBatch
        In the order of (step, call, id), each element once.
    """

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    batch: SampleBatch


def read_samples(run: Path | str, operator: str | None = None) -> NamedSamples:
    """Read all samples of an operator that are on disk.

    Parameters
    ----------
    run : Path or str
        The run folder, or the folder ``samples`` in it. The run may be going on: a training lets go of what it does
        not need, so there are fewer samples than there have been.
    operator : str, optional
        Which one; may be left out where there is one only.

    Raises
    ------
    CouplerError
        If there are none of that operator, or a file is damaged.

    Collective: no.
    """
    folder = Path(run) / "samples" if (Path(run) / "samples").is_dir() else Path(run)
    chosen = operator or _only(folder)
    for looks_left in reversed(range(_MOST_LOOKS)):
        paths = _segments(folder).get(chosen, [])
        if not paths:
            known = did_you_mean(chosen, _segments(folder))
            raise CouplerError(
                f'There are no samples of "{chosen}" in {folder}.{known} Check the path, and learning.mode.'
            )
        try:
            parts = [_read(chosen, path) for path in paths]
        except CouplerError:
            if looks_left and not set(paths) <= set(_segments(folder).get(chosen, [])):
                continue
            raise
        first = parts[0]
        batch = SampleBatch.join([part.batch for part in parts]).sorted_once()
        return NamedSamples(chosen, first.inputs, first.outputs, batch)
    raise AssertionError("the last look gives or raises")


def _segments(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (match := _NAME.fullmatch(path.name)) is not None and not path.name.startswith("."):
            found.setdefault(match[1], []).append(path)
    return found


def _only(folder: Path) -> str:
    known = sorted(_segments(folder))
    if len(known) == 1:
        return known[0]
    held = f"samples of {', '.join(known)}" if known else "no samples"
    advice = f'say which, for example "{known[0]}"' if known else "check the path, and learning.mode"
    raise CouplerError(f"{folder} holds {held}, where one operator's were asked for without a name: {advice}.")


def _read(operator: str, path: Path) -> NamedSamples:
    try:
        with h5py.File(path, "r", locking=False) as file:
            batch = SampleBatch(**{name: file[name][...] for name in COLUMNS})
            inputs = _columns([str(name) for name in file["inputs"].attrs["names"]], batch.inputs.shape[1])
            outputs = _columns([str(name) for name in file["truth"].attrs["names"]], batch.truth.shape[1])
    except (OSError, KeyError, AttributeError, IndexError) as error:
        raise CouplerError(
            f"The samples {path} cannot be read ({error}): the file is truncated, damaged or was not written by "
            "coupler. Restore it, or move it away to go on without its samples."
        ) from error
    return NamedSamples(operator, inputs, outputs, batch)


def _columns(fields: list[str], width: int) -> tuple[str, ...]:
    cells = width // len(fields)
    return tuple(fields) if cells == 1 else tuple(f"{name}.{cell}" for name in fields for cell in range(cells))
