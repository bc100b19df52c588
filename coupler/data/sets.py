"""Tapes and samples as torch data sets, for training outside of a run."""

from pathlib import Path
from typing import TYPE_CHECKING

from coupler.data.read import read_samples
from coupler.tape import Tape

if TYPE_CHECKING:
    from coupler.data.truth import TruthDataset


def tape_dataset(
    run: Path | str, operator: str | None = None, *, since: int = 0, until: int | None = None, most: int | None = None
) -> "TruthDataset":
    """Give recorded truth as a torch data set of (inputs, dt, truth), held in memory.

    Parameters
    ----------
    run : Path or str
        The run folder.
    operator : str, optional
        Which one; may be left out where there is one only.
    since, until : int
        First and last time step that count; all if left out.
    most : int, optional
        Most elements, drawn by hash as :meth:`coupler.tape.Tape.samples` does; all if left out.

    Raises
    ------
    CouplerError
        If there is no such tape.

    Collective: no.
    """
    from coupler.data.truth import TruthDataset

    tape = Tape(run, operator)
    batch = tape.samples(since=since, until=until, most=most)
    return TruthDataset(batch, tape.signature.input_names, tape.signature.output_names)


def sample_dataset(run: Path | str, operator: str | None = None) -> "TruthDataset":
    """Give the samples on disk as a torch data set of (inputs, dt, truth), held in memory.

    Raises
    ------
    CouplerError
        As :func:`coupler.data.read_samples`.

    Collective: no.
    """
    from coupler.data.truth import TruthDataset

    samples = read_samples(run, operator)
    return TruthDataset(samples.batch, samples.inputs, samples.outputs)
