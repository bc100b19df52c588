"""Ledger, tapes, samples and fields as pandas data frames and xarray arrays."""

from pathlib import Path
from typing import Any

import numpy as np

from coupler.data.read import read_samples
from coupler.errors import ConfigError, CouplerError
from coupler.ledger import Ledger
from coupler.records import Reason
from coupler.tape import Tape


def ledger_frame(run: Path | str, table: str = "records") -> Any:
    """Give a table of a run's ledger as a pandas data frame, as :meth:`coupler.ledger.Ledger.frame`."""
    return Ledger(run).frame(table)


def tape_frame(run: Path | str, operator: str | None = None, *, since: int = 0, until: int | None = None) -> Any:
    """Give recorded truth as a pandas data frame: a row per element, columns as in :meth:`coupler.tape.Tape.columns`.

    Parameters
    ----------
    run : Path or str
        The run folder.
    operator : str, optional
        Which one; may be left out where there is one only.
    since, until : int
        First and last time step that count; all if left out, which reads the whole tape into memory.

    Raises
    ------
    CouplerError
        If there is no such tape, or pandas is not installed.

    Collective: no.
    """
    return _pandas().DataFrame(Tape(run, operator).columns(since=since, until=until))


def sample_frame(run: Path | str, operator: str | None = None) -> Any:
    """Give the samples on disk as a pandas data frame: step, call, id, dt, reason, ``inputs.NAME``, ``truth.NAME``.

    Raises
    ------
    CouplerError
        As :func:`coupler.data.read_samples`, or if pandas is not installed.

    Collective: no.
    """
    pd, samples = _pandas(), read_samples(run, operator)
    batch = samples.batch
    words = np.array([reason.name.lower() for reason in Reason], dtype=object)
    columns = {"step": batch.step, "call": batch.call, "id": batch.ids, "dt": batch.dt, "reason": words[batch.reason]}
    columns |= {f"inputs.{name}": batch.inputs[:, place] for place, name in enumerate(samples.inputs)}
    columns |= {f"truth.{name}": batch.truth[:, place] for place, name in enumerate(samples.outputs)}
    return pd.DataFrame(columns)


def field_arrays(run: Path | str) -> Any:
    """Open the fields of a run as an xarray data set over time and the grid's axes; numbers stay on disk until used.

    Raises
    ------
    CouplerError
        If there are none, or xarray is not installed.

    Collective: no.
    """
    path = Path(run) / "fields.h5" if Path(run).is_dir() else Path(run)
    try:
        import xarray
    except ImportError:
        raise ConfigError(
            "xarray is not installed, and a data set is its. Type: pip install 'coupler[data]'. Without it, h5py reads "
            "fields.h5."
        ) from None
    if not path.is_file():
        raise CouplerError(f"{path} is missing, so there are no fields to open: give the folder of a run of a kernel.")
    # Columns beside the fields may have dimensions without a name of their own.
    return xarray.open_dataset(path, engine="h5netcdf", phony_dims="sort")


def _pandas() -> Any:
    try:
        import pandas as pd
    except ImportError:
        raise ConfigError(
            "pandas is not installed, and a data frame is its. Type: pip install 'coupler[data]'."
        ) from None
    return pd
