"""Say what the demo showed: a certified run beside a physics run of the same case. Reads only their folders."""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from coupler.errors import CouplerError
from coupler.ledger import read_ledger
from coupler.records import Decision
from coupler.report import Comparison, compare, draw, draw_comparison
from coupler.report.budget import Shares, shares
from coupler.report.recording import reading
from coupler.summary import Summary, read_summary


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("physics", type=Path, help="run folder of the physics run")
    parser.add_argument("certified", type=Path, help="run folder of the certified run")
    folders = parser.parse_args()
    try:
        show(folders.physics, folders.certified)
    except CouplerError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    return 0


def show(physics: Path, certified: Path) -> None:
    comparison = compare(certified, physics)
    pictures = [draw_comparison(certified, physics), *draw(certified)]
    reference, run = _summary(physics), _summary(certified)
    whole, half = _shares(certified, after=0), _shares(certified, after=run.steps // 2)
    console = Console(highlight=False)
    console.print()
    console.print(_runs(reference, run, whole, half))
    console.print()
    console.print(_findings(comparison, reference, run))
    for picture in pictures:
        # Unbroken, so that a terminal makes it a link.
        console.print(f"[dim]picture[/dim]  {escape(str(picture))}", soft_wrap=True)


def _summary(folder: Path) -> Summary:
    with reading(folder / "summary.json"):
        return read_summary(folder / "summary.json")


def _shares(folder: Path, *, after: int) -> Shares | None:
    """Add up the ledger of the steps after one; None where there was no decision."""
    with reading(folder / "ledger.h5"):
        rows = read_ledger(folder / "ledger.h5")
    rows = rows[rows["step"] > after]
    return shares(rows, 1) if len(rows) else None


def _runs(reference: Summary, run: Summary, whole: Shares | None, half: Shares | None) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column()
    for heading in (reference.mode, run.mode, "its second half"):
        table.add_column(heading, justify="right")
    table.add_row("ranks", str(reference.ranks), str(run.ranks))
    table.add_row("steps", str(reference.steps), str(run.steps), str(run.steps - run.steps // 2))
    table.add_row("elements", f"{reference.elements:,}", f"{run.elements:,}", f"{half.total.sum():,}" if half else "")
    for decision in reversed(Decision):
        name = decision.name.lower()
        if getattr(run.decisions, name):
            table.add_row(f"  {name}", "", _percent(whole, decision), _percent(half, decision))
    table.add_row("models promoted", "", str(len(run.models)))
    seconds = (reference.seconds, run.seconds)
    table.add_row("seconds in the loop", *(f"{item.total - item.setup:.1f}" for item in seconds))
    table.add_row("seconds in all", *(f"{item.total:.1f}" for item in seconds))
    return table


def _findings(comparison: Comparison, reference: Summary, run: Summary) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 1, 0), show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    ranks = "" if reference.ranks == run.ranks else f", though on {run.ranks} ranks against {reference.ranks}"
    table.add_row("certified", escape(run.certificate.sentence))
    table.add_row(
        "measured speed",
        f"{comparison.loop_speedup:.2f}× physics in the loop, "
        f"{comparison.total_speedup:.2f}× with set-up and training{ranks}",
    )
    table.add_row(
        "difference",
        f"{comparison.worst_difference:.2%} of the range of {comparison.worst_field}, the worst field, at step "
        f"{comparison.steps[-1]} (root mean square)",
    )
    return table


def _percent(part: Shares | None, decision: Decision) -> str:
    return "" if part is None else f"{part.share(decision):.1%}"


if __name__ == "__main__":
    sys.exit(main())
