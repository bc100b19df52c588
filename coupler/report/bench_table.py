"""The rows of a benchmark as a table on the screen: times with their units and over ours, then all else they say."""

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from coupler.report.standings import Row, Standing, number_text, ratio_text, seconds_text, standings, timed_columns

_NAMES = ("case", "system")
# Many numbers in one, for the picture.
_CURVE = "_curve"


def table_of(name: str, rows: Sequence[Row]) -> Table:
    """Make the table of one benchmark.

    Parameters
    ----------
    name : str
        Of the benchmark; the title.
    rows : sequence of mapping
        As its ``run`` gives them.

    Returns
    -------
    Table
        A line for each row; a case is named in its first line only, and what the ratios refer to is bold.

    Collective: no.
    """
    found = {(standing.case, standing.system): standing for standing in standings(rows)}
    times = timed_columns(rows)
    columns = dict.fromkeys(key for row in rows for key in row if not key.endswith(_CURVE))
    others = [key for key in columns if key not in (*_NAMES, *times)]
    table = Table(title=escape(name), title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in _NAMES:
        table.add_column(column)
    for column in [*([times[0].removesuffix("_s"), "10 to 90 %", "over ours"] if found else ()), *others]:
        table.add_column(column.removesuffix("_s"), justify="right")
    last = ""
    for row in rows:
        case, system = (str(row[key]) for key in _NAMES)
        standing = found.get((case, system))
        timed = _timed(standing) if found else []
        cells = [system, *timed, *(_cell(row, key) for key in others)]
        first = [escape(case) if case != last else ""]
        table.add_row(
            *first, *map(escape, cells), style="bold" if standing is not None and standing.reference else None
        )
        last = case
    return table


def _timed(standing: Standing | None) -> list[str]:
    if standing is None:
        return [""] * 3
    spread = f"{seconds_text(standing.low)} – {seconds_text(standing.high)}" if standing.high > standing.low else ""
    return [seconds_text(standing.seconds), spread, ratio_text(standing.ratio)]


def _cell(row: Mapping[str, str | int | float], key: str) -> str:
    value = row.get(key, "")
    if isinstance(value, float):
        return seconds_text(value) if key.endswith("_s") else number_text(value)
    return str(value)
