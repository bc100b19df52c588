"""The table of an experiment: one row per configuration, its settings and its figures, tidy."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coupler.atomic import replacing
from coupler.errors import ConfigError
from coupler.experiment.outcome import Outcome

_FIGURES = [name for name in Outcome.model_fields if name not in ("name", "settings")]


def rows_of(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Give a row per configuration: its name, a column per varied key, its figures.

    Settings that are lists or tables are written as JSON.

    Collective: no.
    """
    keys = sorted({key for one in outcomes for key in one.settings})
    return [
        {"name": one.name}
        | {key: _cell(one.settings.get(key)) for key in keys}
        | {figure: getattr(one, figure) for figure in _FIGURES}
        for one in outcomes
    ]


def write_tables(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Write ``table.csv`` and ``table.parquet``.

    Raises
    ------
    ConfigError
        If pandas or pyarrow are not installed.

    Collective: no.
    """
    try:
        import pandas as pd

        frame = pd.DataFrame(rows_of(outcomes))
        with replacing(folder / "table.csv") as temporary:
            frame.to_csv(temporary, index=False)
        with replacing(folder / "table.parquet") as temporary:
            frame.to_parquet(temporary, index=False)
    except ImportError as error:
        raise ConfigError(f'Tables need pandas and pyarrow ({error}): pip install "coupler[experiment]".') from error


def best_of(outcomes: Sequence[Outcome], by: str) -> Outcome | None:
    """Choose among those that finished with their certified loss at most the target; None if there is none.

    Parameters
    ----------
    outcomes : sequence of Outcome
        Of all configurations.
    by : {"speedup", "loss"}
        The fastest, or the least wrong of those faster than physics.

    Collective: no.
    """
    kept = [one for one in outcomes if one.status == "finished" and one.kept]
    if by == "loss":
        kept = [one for one in kept if one.speedup > 1.0]
        return min(kept, key=lambda one: one.true_loss, default=None)
    return max(kept, key=lambda one: one.speedup, default=None)


def _cell(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value
