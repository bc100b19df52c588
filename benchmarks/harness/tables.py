"""Recorded rows as the tables and pictures of a page.

    python -m benchmarks.harness.tables RESULTS --into docs/performance.md --pictures docs/images

A folder of results, as ``benchmarks/results/2026-11-epyc``, has ``NAME.json`` for each benchmark, as
``coupler bench NAME --json`` writes them, and ``machine.json``. In the page, what is between
``<!-- table NAME ... -->`` and ``<!-- end -->`` is written anew:

- ``<!-- table NAME cases=GLOB -->``: a line for each system, a column for each case, medians and times over ours;
- ``<!-- table NAME cases=GLOB columns=ONE,OTHER -->``: a line for each row, with these columns of it;
- ``<!-- machine -->``: what was measured on.
"""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from coupler.report.bench import draw_bench
from coupler.report.standings import (
    Row,
    Standing,
    by_case,
    from_fast_to_slow,
    number_text,
    ratio_text,
    seconds_text,
    standings,
)

_PLACE = re.compile(r"(<!-- (table|machine)\b([^>]*?)-->\n).*?(<!-- end -->)", re.DOTALL)
_MACHINE = "machine.json"
_MISSING = "*Not recorded yet.*\n"


def fill(page: str, results: Path) -> str:
    """Write the tables of a page anew.

    Parameters
    ----------
    page : str
        Markdown with the places for them.
    results : Path
        Folder of ``NAME.json`` and ``machine.json``; what it has not is said to be missing.
    """

    def table(place: re.Match[str]) -> str:
        before, kind, asked, after = place.groups()
        made = _machine(results) if kind == "machine" else _table(results, asked.split())
        return f"{before}\n{made}\n{after}"

    return _PLACE.sub(table, page)


def draw(results: Path, pictures: Path) -> list[Path]:
    """Draw ``bench-NAME.png`` for every benchmark of a folder of results."""
    found = []
    for path in sorted(results.glob("*.json")):
        if path.name != _MACHINE:
            picture = draw_bench(path.stem, read(path), pictures / f"bench-{path.stem}.png")
            found += [] if picture is None else [picture]
    return found


def read(path: Path) -> list[Row]:
    """Read the rows of one benchmark."""
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))
    return rows


def across(rows: Sequence[Row]) -> str:
    """Make a Markdown table with a line for each system and a column for each case.

    Parameters
    ----------
    rows : sequence of mapping
        Of one benchmark.

    Returns
    -------
    str
        What the others take over ours stands in brackets; what ours is compared by is bold.
    """
    found = standings(rows)
    cases = by_case(found)
    cells = {(standing.system, standing.case): _cell(standing) for standing in found}
    lines = [
        [f"`{system}`", *(cells.get((system, case), "–") for case in cases)] for system in from_fast_to_slow(found)
    ]
    return _joined([["", *cases], ["---", *["---:"] * len(cases)], *lines])


def along(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Make a Markdown table with a line for each row: case, system, time, time over ours, and these columns."""
    found = {(standing.case, standing.system): standing for standing in standings(rows)}
    headings = ["case", "system", *(["time", "over ours"] if found else []), *map(_heading, columns)]
    lines = [headings, ["---", "---", *["---:"] * (len(headings) - 2)]]
    last = ""
    for row in rows:
        case, system = str(row["case"]), str(row["system"])
        standing = found.get((case, system))
        timed = ["–", ""] if standing is None else [seconds_text(standing.seconds), ratio_text(standing.ratio)]
        others = [_value(row, name) for name in columns]
        lines.append([case if case != last else "", f"`{system}`", *(timed if found else []), *others])
        last = case
    return _joined(lines)


def _table(results: Path, asked: Sequence[str]) -> str:
    name, *options = asked
    said = dict(option.split("=", 1) for option in options)
    path = results / f"{name}.json"
    if not path.exists():
        return _MISSING
    rows = [row for row in read(path) if any(fnmatchcase(str(row["case"]), glob) for glob in _globs(said))]
    return along(rows, said["columns"].split(",")) if "columns" in said else across(rows)


def _globs(said: Mapping[str, str]) -> list[str]:
    return said.get("cases", "*").split(",")


def _machine(results: Path) -> str:
    path = results / _MACHINE
    if not path.exists():
        return _MISSING
    facts = json.loads(path.read_text(encoding="utf-8"))
    return _joined([["", ""], ["---", "---"], *([key.replace("_", " "), str(facts[key])] for key in facts)])


def _cell(standing: Standing) -> str:
    time, ratio = seconds_text(standing.seconds), ratio_text(standing.ratio)
    if standing.reference:
        return f"**{time}**"
    return f"{time} ({ratio})" if ratio else time


def _heading(column: str) -> str:
    return column.removesuffix("_s").replace("_", " ")


def _value(row: Row, column: str) -> str:
    value = row.get(column, "")
    if isinstance(value, float):
        return seconds_text(value) if column.endswith("_s") else number_text(value)
    return str(value)


def _joined(lines: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill a page and draw the pictures; without either, print all tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.harness.tables", description="Tables from results.")
    parser.add_argument("results", type=Path, help="folder of NAME.json and machine.json")
    parser.add_argument("--into", type=Path, metavar="PAGE", help="the page whose tables are written anew")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="where bench-NAME.png are drawn")
    said = parser.parse_args(arguments)
    if said.into is not None:
        said.into.write_text(fill(said.into.read_text(encoding="utf-8"), said.results), encoding="utf-8")
    if said.pictures is not None:
        draw(said.results, said.pictures)
    if said.into is None and said.pictures is None:
        for path in sorted(said.results.glob("*.json")):
            if path.name != _MACHINE:
                print(f"{path.stem}\n\n{across(read(path))}")


if __name__ == "__main__":
    main()
