"""``python -m benchmarks.harness.chaos --faults N --seed S``: so many random faults, a table, and a JSON file."""

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.harness.chaos.faults import draw
from benchmarks.harness.chaos.trial import CASES, Outcome, Undisturbed, attempt, can_resume, undisturbed


def main() -> int:
    """Make all trials; give 1 if anything was wrong in one."""
    asked = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    asked.add_argument("--faults", type=int, default=300, help="how many")
    asked.add_argument("--seed", type=int, default=1, help="the same seed draws the same faults")
    asked.add_argument("--first", type=int, default=0, help="begin at this one of them")
    asked.add_argument("--deadline", type=float, default=240.0, help="what takes longer hangs [s]")
    asked.add_argument("--json", type=Path, default=Path("chaos.json"), help="where the outcomes go")
    asked.add_argument("--keep", type=Path, help="a folder for the runs; those in which nothing was wrong are removed")
    options = asked.parse_args()
    if not can_resume():
        print("there is no `coupler resume`: runs that lose a rank are only looked at, not gone on with")
    with tempfile.TemporaryDirectory(prefix="coupler-chaos-") as temporary:
        outcomes = _all(options, options.keep or Path(temporary))
    options.json.write_text(json.dumps([one.to_json() for one in outcomes], indent=1) + "\n")
    wrong = [one for one in outcomes if one.wrong]
    print(f"{len(outcomes)} faults: {_counted(outcomes)}; {len(wrong)} with something wrong")
    return 1 if wrong else 0


def _all(options: argparse.Namespace, folder: Path) -> list[Outcome]:
    folder.mkdir(parents=True, exist_ok=True)
    compared: dict[tuple[str, bool], Undisturbed] = {}
    outcomes: list[Outcome] = []
    for fault in draw(options.seed, options.faults, tuple(CASES)):
        if fault.number < options.first:
            continue
        key = fault.case, fault.deterministic
        if key not in compared:
            place = folder / f"undisturbed-{fault.case}-{fault.deterministic}"
            compared[key] = undisturbed(
                fault.case, deterministic=fault.deterministic, folder=place, deadline=options.deadline
            )
        outcomes.append(attempt(fault, compared[key], folder / f"{fault.number:04d}", options.deadline))
        print(_line(outcomes[-1]), flush=True)
    return outcomes


def _line(outcome: Outcome) -> str:
    missed = "" if outcome.hit else " (was not there)"
    wrong = f"  WRONG: {'; '.join(outcome.wrong)}" if outcome.wrong else ""
    fault = f"{outcome.fault}{missed}"
    return f"{outcome.fault.number:4d}  {fault:<72} {outcome.ending:<9} {outcome.seconds:6.1f} s{wrong}"


def _counted(outcomes: list[Outcome]) -> str:
    counts = Counter(one.ending for one in outcomes)
    return ", ".join(f"{count} {ending}" for ending, count in counts.most_common())


if __name__ == "__main__":
    sys.exit(main())
