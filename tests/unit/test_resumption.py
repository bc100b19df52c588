"""Going on with a run: a loop of one's own finds its rows, and what must not change is refused untouched."""

from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI

from coupler import Coupling, Operator
from coupler.case import Case
from coupler.checkpoint import Shelf
from coupler.config import case_from, read_case
from coupler.coupling.resumption import Resumption
from coupler.errors import ConfigError, CouplerError
from coupler.ledger import read_ledger
from coupler.progress import MetricsFile
from coupler.summary import read_summary

IDS = np.array([7, 3, 11, 5])
STEPS = 8


def decay(atol: float = 1e-3) -> Operator:
    return Operator(lambda inputs, dt: inputs * 0.9, inputs=("a", "b"), outputs=("a", "b"), atol=atol, rtol=1e-3)


def physics(**sections: dict[str, object]) -> Case:
    run = {"steps": STEPS, "checkpoint_every": 3, "checkpoint_seconds": 0.0}
    return case_from({"controller": {"mode": "physics"}, "run": run, **sections}, folder=Path.cwd())


class Lost(Exception):
    """Something that ends a run."""


def loop(coupling: Coupling, dies_after: int = 0) -> np.ndarray:
    """A loop of one's own, with rows in an order of its own."""
    order = np.argsort(IDS) if coupling.resumed else np.arange(len(IDS))
    ids, first = IDS[order], 0
    cells = np.stack([ids, ids**2], axis=1).astype(float)
    with coupling:
        if coupling.resumed is not None:
            first, cells = coupling.resumed.step, coupling.resumed.rows("cells", ids)
            assert coupling.resumed.numbers == {"t": 0.5 * first}
        for step in range(first, STEPS):
            cells = coupling.evaluate(cells, ids, 0.5)
            coupling.end_step()
            if coupling.checkpoint_due:
                coupling.checkpoint({"cells": cells}, ids, numbers={"t": 0.5 * (step + 1)})
            if coupling.stopping:
                break
            if step + 1 == dies_after:
                raise Lost
    return cells[np.argsort(ids)]


@pytest.fixture
def lost(tmp_path: Path) -> Path:
    """The folder of a run that died in its eighth step, with checkpoints of the third and the sixth."""
    with pytest.raises(Lost):
        loop(Coupling(decay(), case=physics(), comm=MPI.COMM_SELF, out=tmp_path / "lost"), dies_after=7)
    return tmp_path / "lost"


def test_a_loop_of_ones_own_goes_on_with_its_rows_in_any_order(lost: Path, tmp_path: Path) -> None:
    whole = loop(Coupling(decay(), case=physics(), comm=MPI.COMM_SELF, out=tmp_path / "whole"))

    resumed = loop(Coupling(decay(), comm=MPI.COMM_SELF, resume=lost))

    np.testing.assert_array_equal(resumed, whole)
    assert read_summary(lost / "summary.json").decisions == read_summary(tmp_path / "whole" / "summary.json").decisions
    assert read_ledger(lost / "ledger.h5")["step"].tolist() == list(range(1, STEPS + 1))
    assert not (lost / "checkpoints").exists()


def test_a_loop_that_is_asked_to_stop_ends_with_a_checkpoint_and_goes_on(tmp_path: Path) -> None:
    first = Coupling(decay(), case=physics(), comm=MPI.COMM_SELF, out=tmp_path / "run")
    first.ask_to_stop()
    loop(first)
    made = read_summary(tmp_path / "run" / "summary.json").steps

    second = Coupling(decay(), comm=MPI.COMM_SELF, resume=tmp_path / "run")
    loop(second)

    assert (first.stopped, second.stopped) == (True, False)
    assert made == 2  # a step late
    assert read_summary(tmp_path / "run" / "summary.json").steps == STEPS


def test_an_id_that_was_not_kept_is_named(lost: Path) -> None:
    coupling = Coupling(decay(), comm=MPI.COMM_SELF, resume=lost)
    assert coupling.resumed is not None

    with pytest.raises(CouplerError, match="has no row of the id 4: ask for the ids"):
        coupling.resumed.rows("cells", np.array([3, 4]))
    assert coupling.resumed.rows("cells", IDS[:0]).shape == (0, 2)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"run": {"steps": STEPS, "dt": 2.0}}, "run.dt is 2.0 now and was 1.0 in the first 6 steps of"),
        ({"run": {"steps": STEPS, "seed": 1}}, "run.seed is 1 now and was 0"),
        ({"controller": {"mode": "shadow"}}, "controller.mode is 'shadow' now and was 'physics'"),
        ({"surrogate": {"params": {"width": 3}}}, "surrogate.params.width is 3 now and was None"),
        ({"run": {"steps": 5}}, r"run\.steps = 5, and .* has made 6 steps already: give at least 6"),
    ],
)
def test_what_must_not_change_is_refused_and_nothing_is_touched(
    lost: Path, sections: dict[str, dict[str, object]], said: str
) -> None:
    before = contents(lost)

    with pytest.raises(ConfigError, match=said):
        Coupling(decay(), case=physics(**sections), comm=MPI.COMM_SELF, resume=lost)

    assert contents(lost) == before


def test_what_may_change_changes_the_effective_case(lost: Path) -> None:
    case = physics(exchange={"deadline": 9.0}, run={"steps": STEPS, "output_every": 5, "checkpoints": 1})
    with Coupling(decay(), case=case, comm=MPI.COMM_SELF, resume=lost):
        assert read_case(lost / "case.toml").exchange.deadline == 9.0


def test_an_audit_rate_that_was_chosen_stays_the_one_that_was_chosen(tmp_path: Path) -> None:
    chosen = physics(controller={"mode": "physics", "audit_rate": 0.25})
    with pytest.raises(Lost):
        loop(Coupling(decay(), case=chosen, comm=MPI.COMM_SELF, out=tmp_path / "run"), dies_after=7)

    wanted = physics(controller={"mode": "physics", "audit_rate": "auto"})

    assert Resumption.open(tmp_path / "run", wanted).case.controller.audit_rate == 0.25


def test_other_operators_are_refused(lost: Path) -> None:
    with pytest.raises(ConfigError, match=r"other operators than these \(operator differs in columns, units, b"):
        Coupling(decay(atol=1e-6), comm=MPI.COMM_SELF, resume=lost)
    with pytest.raises(ConfigError, match=r"other operators than these \(melting differs"):
        Coupling({"melting": decay()}, comm=MPI.COMM_SELF, resume=lost)


def test_folders_that_hold_nothing_to_go_on_with_are_one_sentence(lost: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no run folder: it has no case"):
        Coupling(decay(), comm=MPI.COMM_SELF, resume=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="leave out= and replay= out beside resume"):
        Coupling(decay(), comm=MPI.COMM_SELF, resume=lost, out=tmp_path / "other")
    loop(Coupling(decay(), comm=MPI.COMM_SELF, resume=lost))
    with pytest.raises(ConfigError, match="is finished: all its 8 steps were made"):
        Coupling(decay(), comm=MPI.COMM_SELF, resume=lost)


def test_a_run_that_went_on_meanwhile_is_not_gone_on_with_twice(lost: Path) -> None:
    slow = Coupling(decay(), comm=MPI.COMM_SELF, resume=lost)
    shelf = Shelf(lost / "checkpoints")
    shelf.put(7, [], lambda: {"step": 7}, 2)

    with pytest.raises(ConfigError, match="went on meanwhile: look at it, and type the same again"), slow:
        pass


def test_without_checkpoints_there_is_nothing_to_go_on_with(tmp_path: Path) -> None:
    case = physics(run={"steps": STEPS, "checkpoints": 0, "checkpoint_every": 1})
    with pytest.raises(Lost):
        loop(Coupling(decay(), case=case, comm=MPI.COMM_SELF, out=tmp_path / "run"), dies_after=7)

    with pytest.raises(CouplerError, match="has no checkpoint to go on from"):
        Coupling(decay(), comm=MPI.COMM_SELF, resume=tmp_path / "run")


def test_metrics_go_on_after_the_bytes_that_stay(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')

    file = MetricsFile(path, 12)
    length = file.length
    file.close()

    assert (path.read_text(), length) == ('{"step": 1}\n', 12)
