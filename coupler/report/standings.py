"""Standings: where the systems of a benchmark stand beside ours, case by case; what tables and pictures share."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Row = Mapping[str, str | int | float]

# Systems of ours are named so. Ratios refer to what a run does by itself, the first of these that a case has; where it
# has none of them, to its first system of ours.
_OURS = "coupler"
_REFERENCES = ("coupler", "coupler-shared", "coupler-sharing", "coupler-objectstore")
# What the machine would allow, or what there is without any exchange: nobody's rival, but the end of the scale.
_LIMITS = ("memory-copy", "compute", "bare", "gemm-limit")
# The column that a benchmark is about, if it has it, with the columns of its 10 and 90 % quantiles.
_COLUMNS = (("added_s", "added_p10_s", "added_p90_s"), ("median_s", "p10_s", "p90_s"))
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


@dataclass(frozen=True)
class Standing:
    """One system in one case.

    Parameters
    ----------
    case, system : str
        What was measured.
    seconds : float
        What an exchange adds to a step where the benchmark is about that, the median otherwise [s].
    low, high : float
        10 and 90 % quantiles [s]; the median again where the row has none.
    ratio : float
        Its time over ours in the same case; nan where none of ours is there or either is not positive [1].
    reference, ours, limit : bool
        Whether it is what the ratios refer to; whether it is a system of ours; whether it is a limit and no rival.
    """

    case: str
    system: str
    seconds: float
    low: float
    high: float
    ratio: float
    reference: bool
    ours: bool
    limit: bool


def standings(rows: Sequence[Row]) -> list[Standing]:
    """Compare the rows of one benchmark.

    Parameters
    ----------
    rows : sequence of mapping
        As ``run`` of a benchmark gives them.

    Returns
    -------
    list of Standing
        One for every row with a time, in the order of the rows.

    Collective: no.
    """
    column, low, high = timed_columns(rows)
    timed = [row for row in rows if column in row]
    ours = {str(row["system"]): None for row in timed if str(row["system"]).startswith(_OURS)}
    reference: dict[str, tuple[str, float]] = {}
    for system in sorted(ours, key=lambda name: _REFERENCES.index(name) if name in _REFERENCES else len(_REFERENCES)):
        for row in timed:
            if row["system"] == system:
                reference.setdefault(str(row["case"]), (system, float(row[column])))
    found = []
    for row in timed:
        case, system, seconds = str(row["case"]), str(row["system"]), float(row[column])
        name, time = reference.get(case, ("", math.nan))
        found.append(
            Standing(
                case=case,
                system=system,
                seconds=seconds,
                low=float(row.get(low, seconds)),
                high=float(row.get(high, seconds)),
                ratio=seconds / time if min(seconds, time) > 0 else math.nan,
                reference=system == name,
                ours=system in ours,
                limit=system in _LIMITS,
            )
        )
    return found


def by_case(found: Iterable[Standing]) -> dict[str, list[Standing]]:
    """Put the standings of each case together."""
    cases: dict[str, list[Standing]] = {}
    for standing in found:
        cases.setdefault(standing.case, []).append(standing)
    return cases


def from_fast_to_slow(found: Sequence[Standing]) -> dict[str, Standing]:
    """Order the systems by their mean distance to the fastest of each case; limits come first.

    Returns
    -------
    dict of system to Standing
        With any standing of each.
    """
    distances: dict[str, list[float]] = {}
    for group in by_case(found).values():
        fastest = min((each.seconds for each in group if each.seconds > 0 and not each.limit), default=1.0)
        for standing in group:
            distances.setdefault(standing.system, []).append(math.log(max(standing.seconds / fastest, 1.0)))
    systems = {standing.system: standing for standing in found}
    mean = {system: sum(each) / len(each) for system, each in distances.items()}
    return {
        system: systems[system] for system in sorted(systems, key=lambda name: (not systems[name].limit, mean[name]))
    }


def timed_columns(rows: Sequence[Row]) -> tuple[str, str, str]:
    """Name the column of times that a benchmark is about, one that all its timings have, and those of its quantiles."""
    timings = [row for row in rows if _COLUMNS[-1][0] in row]
    return next(
        (columns for columns in _COLUMNS if timings and all(columns[0] in row for row in timings)), _COLUMNS[-1]
    )


def seconds_text(seconds: float) -> str:
    """Write a time with three digits and the unit that suits it: ``3.05 µs``."""
    if seconds == 0 or not math.isfinite(seconds):
        return f"{seconds:g} s"
    # By the rounded number: 999.96 µs is 1 ms.
    size = abs(float(f"{seconds:.3g}"))
    scale, unit = next(((scale, unit) for scale, unit in _UNITS if size >= scale), _UNITS[-1])
    return f"{_three_digits(seconds / scale)} {unit}"


def ratio_text(ratio: float) -> str:
    """Write a ratio to ours: two digits behind the point near one, none where they say nothing; empty for nan."""
    if not math.isfinite(ratio):
        return ""
    rounded = f"{ratio:.2f}" if ratio < 2 else f"{ratio:.1f}" if ratio < 9.95 else f"{float(f'{ratio:.3g}'):,.0f}"
    return f"{rounded}×".replace(",", " ")


def number_text(number: float) -> str:
    """Write any other number with three digits, the powers of ten only where it is very large or small."""
    if math.isfinite(number) and 1e3 <= abs(number) < 1e7:
        return f"{float(f'{number:.3g}'):,.0f}".replace(",", " ")
    return f"{number:.3g}"


def _three_digits(number: float) -> str:
    digits = 2 - math.floor(math.log10(abs(float(f"{number:.3g}"))))
    return f"{float(f'{number:.3g}'):.{max(digits, 0)}f}"
