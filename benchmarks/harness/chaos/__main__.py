"""``python -m benchmarks.harness.chaos --faults N --seed S``: so many random faults, a table, and a JSON file."""

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.harness.chaos.faults import draw
from benchmarks.harness.chaos.trial import CASES, Outcome, Undisturbed, attempt, undisturbed


def main() -> int:
    """Make trials until there were enough faults; give 1 if anything was wrong in one."""
    asked = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    asked.add_argument("--faults", type=int, default=300, help="how many at least; a run has up to four")
    asked.add_argument("--seed", type=int, default=1, help="the same seed draws the same faults")
    asked.add_argument("--first", type=int, default=0, help="begin with this run")
    asked.add_argument("--deadline", type=float, default=300.0, help="what takes longer hangs [s]")
    asked.add_argument("--json", type=Path, default=Path("chaos.json"), help="where the outcomes go")
    asked.add_argument("--keep", type=Path, help="a folder for the runs and what they said, to be looked at")
    options = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="coupler-chaos-") as temporary:
        outcomes = _all(options, options.keep or Path(temporary))
    options.json.write_text(json.dumps([one.to_json() for one in outcomes], indent=1) + "\n")
    wrong = [one for one in outcomes if one.wrong]
    drawn, hits = _faults(outcomes), sum(one.hits for one in outcomes)
    print(f"{drawn} faults, {hits} of them met their victim, in {len(outcomes)} runs: {_counted(outcomes)}")
    print(f"{len(wrong)} runs with something wrong")
    return 1 if wrong else 0


def _all(options: argparse.Namespace, folder: Path) -> list[Outcome]:
    folder.mkdir(parents=True, exist_ok=True)
    compared: dict[tuple[str, bool], Undisturbed] = {}
    outcomes: list[Outcome] = []
    for trial in draw(options.seed, tuple(CASES), options.first):
        if _faults(outcomes) >= options.faults:
            break
        key = trial.case, trial.deterministic
        if key not in compared:
            place = folder / f"undisturbed-{trial.case}-{trial.deterministic}"
            compared[key] = undisturbed(*key, folder=place, deadline=options.deadline)
        outcomes.append(attempt(trial, compared[key], folder / f"{trial.number:04d}", options.deadline))
        print(_lines(outcomes[-1]), flush=True)
    return outcomes


def _lines(outcome: Outcome) -> str:
    trial = outcome.trial
    head = f"{trial.number:4d}  {trial!s:<28} {outcome.ending:<11} {outcome.seconds:6.1f} s"
    missed = [""] * outcome.hits + ["  (was not there)"] * (len(trial.faults) - outcome.hits)
    faults = [f"{'':6}{fault}{note}" for fault, note in zip(trial.faults, missed, strict=True)]
    return "\n".join([head, *faults, *(f"{'':6}WRONG: {what}" for what in outcome.wrong)])


def _faults(outcomes: list[Outcome]) -> int:
    return sum(len(one.trial.faults) for one in outcomes)


def _counted(outcomes: list[Outcome]) -> str:
    counts = Counter(one.ending for one in outcomes)
    return ", ".join(f"{count} {ending}" for ending, count in counts.most_common())


if __name__ == "__main__":
    sys.exit(main())
