"""Scripts: what hung on a clock is read from a ledger, whoever the elements belong to now."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpi4py import MPI

from coupler.config import case_from
from coupler.coupling import Coupling
from coupler.coupling.call import CallRecord, Unanswered, id_ranges
from coupler.coupling.entries import Groups, OperatorCall
from coupler.coupling.script import Absences, Absent, Script
from coupler.errors import ConfigError, CouplerError
from coupler.ledger import EVENT, RECORD, STEP, UNANSWERED, UNANSWERED_IDS, LedgerFile
from coupler.operator import Operator
from coupler.records import Event, EventKind, Reason
from coupler.replay import compare, replay

if TYPE_CHECKING:
    from tests.conftest import Processes

IDS = st.lists(st.integers(0, 60), unique=True, max_size=30).map(lambda ids: np.array(ids, np.int64))


@given(ids=IDS)
def test_ranges_hold_the_ids_they_were_made_of_in_as_few_pieces_as_can_be(ids: np.ndarray) -> None:
    ranges = id_ranges(ids)

    numbers = [number for first, stop in ranges.tolist() for number in range(first, stop)]
    assert numbers == sorted(ids.tolist())
    assert (ranges[1:, 0] > ranges[:-1, 1]).all()


@given(late=IDS, lost=IDS, asked=IDS)
def test_whoever_went_without_an_answer_does_so_again_on_any_rank(
    late: np.ndarray, lost: np.ndarray, asked: np.ndarray
) -> None:
    lost = np.setdiff1d(lost, late)
    groups = [(Reason.TIMEOUT, late), (Reason.SERVER_LOST, lost)]
    absences = Absences({(4, 1): [Absent(reason, id_ranges(ids)) for reason, ids in groups if len(ids)]})

    reasons = absences(4, 1, asked)

    expected = [
        Reason.TIMEOUT if one in late else Reason.SERVER_LOST if one in lost else Reason.ACCEPTED for one in asked
    ]
    assert (reasons is None) == (not any(expected))
    assert reasons is None or reasons.tolist() == expected
    assert absences(4, 0, asked) is None
    assert absences(5, 1, asked) is None


def test_a_group_that_is_the_same_in_every_call_is_written_once() -> None:
    groups, ids = Groups(rank=3), id_ranges(np.array([7, 8, 9, 20]))
    calls = [OperatorCall(1, _call(step, Unanswered(Reason.SERVER_LOST, ids.copy()))) for step in (1, 2)]

    first = groups.rows([*calls, OperatorCall(1, _call(3))])
    second = groups.rows([OperatorCall(1, _call(4, Unanswered(Reason.SERVER_LOST, ids)))])
    third = groups.rows([OperatorCall(1, _call(5, Unanswered(Reason.SERVER_LOST, ids[:1])))])

    assert first["unanswered"].tolist() == [(1, 0, 1, 3, 9, 0), (2, 0, 1, 3, 9, 0)]
    assert first["unanswered_ids"].tolist() == [(3, 0, 7, 10), (3, 0, 20, 21)]
    assert second["unanswered"].tolist() == [(4, 0, 1, 3, 9, 0)]
    assert len(second["unanswered_ids"]) == 0
    assert third["unanswered_ids"].tolist() == [(3, 1, 7, 10)]


def test_a_script_says_what_stood_when_and_who_went_without(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", steps=3)
    steps = np.zeros(6, STEP)
    steps["step"], steps["off"] = np.arange(1, 7), [0, 0, 1, 1, 0, 0]
    events = np.zeros(1, EVENT)
    events[0] = (3, 0, 0, b"switched-off", b"it does not pay")
    unanswered, ids = np.array([(2, 0, 0, 5, 8, 7)], UNANSWERED), np.array([(5, 7, 1, 3)], UNANSWERED_IDS)
    tables = {"steps": steps, "events": events, "unanswered": unanswered, "unanswered_ids": ids}
    rewrite(folder, np.zeros(0, RECORD), tables)

    script = Script.read(folder)

    assert {step: standing.off for step, standing in script.standings[0].items()} == {3: True, 5: False}
    assert script.events == (Event(3, 0, EventKind.SWITCHED_OFF, 0, "it does not pay"),)
    reasons = script.absences[0](2, 0, np.arange(4))
    assert reasons is not None
    assert reasons.tolist() == [0, Reason.TIMEOUT, Reason.TIMEOUT, 0]


@pytest.mark.parametrize("steps", [0, 4])
def test_a_loop_done_again_is_bitwise_the_same(tmp_path: Path, steps: int) -> None:
    before = run(tmp_path / "run", steps)

    comparison = compare(before, run(tmp_path / "again", steps, replay=before))

    assert comparison.same
    assert comparison.sentence == f"bitwise the same: {steps} steps, 1 rank then, 1 now"
    assert str(comparison).count("✓") == len(comparison.ticks)


def test_one_call_more_is_found_and_named(tmp_path: Path) -> None:
    before, after = run(tmp_path / "run", 3), run(tmp_path / "again", 4)

    assert "step 4, call 0, rank 0, operator operator: there is such a call only in the replay" in str(
        compare(before, after)
    )


def test_a_run_that_has_not_ended_is_not_replayed(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", 2)
    (folder / "summary.json").unlink()

    with pytest.raises(ConfigError, match=r"has no summary\.json: the run goes on or was cut short"):
        replay(folder)


def test_a_summary_that_was_cut_short_is_one_sentence(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", 2)
    (folder / "summary.json").write_text('{"status": "fin')

    with pytest.raises(CouplerError, match=r"summary\.json cannot be read"):
        replay(folder)


def test_a_folder_of_something_else_is_not_replayed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is no run folder: it has no case\.toml"):
        replay(tmp_path)


def test_a_run_with_a_loop_of_its_own_is_told_how_it_is_replayed(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", 2)

    with pytest.raises(ConfigError, match=r'type Coupling\(\.\.\., replay="'):
        replay(folder)


def test_other_operators_are_another_run(tmp_path: Path) -> None:
    before = run(tmp_path / "run", 2)

    with pytest.raises(ConfigError, match="has the operators operator, and this one has left, right"):
        Coupling({"left": half(), "right": half()}, comm=MPI.COMM_SELF, replay=before)


def test_a_run_is_never_replayed_into_its_own_folder(tmp_path: Path) -> None:
    before = run(tmp_path / "run", 2)

    with pytest.raises(ConfigError, match="already holds a finished run, which is never overwritten"):
        run(before, 2, replay=before)

    assert compare(before, before).same


def test_ranks_are_not_started_by_ranks(tmp_path: Path, processes: "Processes") -> None:
    command = [sys.executable, "-m", "coupler", "replay", str(tmp_path), "--ranks", "2"]

    finished = processes.run(command, timeout=60, environment={"OMPI_COMM_WORLD_RANK": "0"})

    assert finished.returncode == 2
    assert finished.stdout.strip() == (
        "coupler: --ranks starts mpirun, and this is under mpirun already: leave one of the two out."
    )


def run(out: Path, steps: int, replay: Path | None = None) -> Path:
    """Make a run of physics with a loop of one's own."""
    case = case_from({"controller": {"mode": "physics"}}, folder=out.parent)
    with Coupling(half(), case=case, comm=MPI.COMM_SELF, out=out, replay=replay) as coupling:
        for step in range(steps):
            coupling.evaluate(np.full((step, 1), 2.0), np.arange(step), 0.1)
            coupling.end_step()
    return out


def half() -> Operator:
    return Operator(lambda inputs, dt: inputs / 2, inputs=("a",), outputs=("a",), atol=1e-3, rtol=1e-3)


def rewrite(folder: Path, records: np.ndarray, tables: dict) -> None:
    """Put another ledger in the place of a run's."""
    for segment in (folder / "ledger").iterdir():
        segment.unlink()
    (folder / "ledger").rmdir()
    (folder / "ledger.h5").unlink()
    LedgerFile(folder / "ledger.h5", ("operator",)).append(records, tables)


def _call(step: int, *unanswered: Unanswered) -> CallRecord:
    sums = [0] * 8
    return CallRecord(step, 0, [0] * len(Reason), sums, 0.5, 0.1, 1, 0.0, 0.0, 0.0, 0.0, False, unanswered)
