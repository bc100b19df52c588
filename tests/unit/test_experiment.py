"""Experiments: the plan that is read, what is foretold, the table and the picture."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupler.errors import ConfigError, CouplerError
from coupler.experiment import Experiment, Outcome, read_plan
from coupler.experiment.conduct import case_for_tape
from coupler.experiment.prediction import PhysicsCost, TrainingCost, physics_cost, predicted_speedup
from coupler.experiment.processes import surroundings
from coupler.experiment.table import best_of, rows_of, write_tables
from coupler.experiment.taped import RecordedTruth
from coupler.report.pareto import draw_pareto, front, telling_setting
from coupler.summary import CertificateSummary, Decisions, Seconds, Summary
from coupler.tape import TapeCall

CASE = """
[run]
steps = 7
[kernel]
name = "coupler.kernels.heat:Heat"
[grid]
shape = [4, 4]
[learning]
mode = "deterministic"
"""
SHARES = st.floats(0.0, 1.0)


@pytest.fixture
def write(tmp_path: Path):
    (tmp_path / "case.toml").write_text(CASE)

    def file(text: str) -> Path:
        path = tmp_path / "plan.toml"
        path.write_text('case = "case.toml"\n' + text)
        return path

    return file


def summary(*, elements: int = 1000, seconds: Seconds | None = None, answer: float = 0.0, **decisions: int) -> Summary:
    certificate = CertificateSummary(
        delta=0.05, cap=5.0, target=0.02, loss_bound_per_decision=0.01, loss_estimate_per_decision=0.005,
        exceedance_bound=0.0, audits=10, loss_bound_per_accepted=0.01, exceedance_estimate=0.0, sentence="",
    )  # fmt: skip
    return Summary(
        status="finished", steps=10, ranks=2, seed=0, coin_seed=0, mode="certified", elements=elements,
        seconds=seconds or Seconds(),
        decisions=Decisions(**decisions), certificate=certificate, truth_seconds_per_element=1e-3,
        surrogate_seconds_per_element=answer, speedup_estimate=1.0,
    )  # fmt: skip


def outcome(name: str = "a", *, status: str = "finished", kept: bool = True, **figures: object) -> Outcome:
    known = {"name": name, "settings": {}, "status": status, "kept": kept, "target": 0.02}
    return Outcome.model_validate(known | figures)


def test_every_combination_of_a_grid_is_a_configuration_of_its_own(write) -> None:
    plan = read_plan(write('[grid]\n"run.seed" = [1, 2, 3]\n"controller.audit_rate" = [0.02, 0.05]\n'))

    assert [(one.case.run.seed, one.case.controller.audit_rate) for one in plan.configurations] == [
        (seed, rate) for seed in (1, 2, 3) for rate in (0.02, 0.05)
    ]
    assert len({one.name for one in plan.configurations}) == 6
    assert all(one.case.run.steps == 7 for one in plan.configurations)


def test_what_is_set_holds_for_all_configurations_and_the_grid_has_the_last_word(write) -> None:
    plan = read_plan(write('[set]\n"run.steps" = 9\n"run.seed" = 5\n[grid]\n"run.seed" = [1, 2]\n'))

    assert [(one.case.run.steps, one.case.run.seed) for one in plan.configurations] == [(9, 1), (9, 2)]


def test_what_is_set_and_what_is_compared_need_be_a_valid_case_together_only(write) -> None:
    plan = read_plan(write('[set]\n"learning.buffer" = 500\n[grid]\n"learning.first" = [200, 400]\n'))

    assert [one.case.learning.first for one in plan.configurations] == [200, 400]


def test_draws_are_the_same_for_the_same_seed(write) -> None:
    text = 'samples = 12\nseed = {seed}\n[ranges]\n"controller.audit_rate" = {{low = 0.01, high = 0.2, log = true}}\n'
    first, again, other = (read_plan(write(text.format(seed=seed))) for seed in (4, 4, 5))

    rates = [one.case.controller.audit_rate for one in first.configurations]
    assert len(rates) == 12
    assert all(isinstance(rate, float) and 0.01 <= rate <= 0.2 for rate in rates)
    assert [one.name for one in again.configurations] == [one.name for one in first.configurations]
    assert [one.name for one in other.configurations] != [one.name for one in first.configurations]


def test_whole_numbers_are_drawn_from_whole_ends(write) -> None:
    text = 'samples = 20\n[ranges]\n"learning.first" = {low = 200, high = 400}\n'

    firsts = {one.case.learning.first for one in read_plan(write(text)).configurations}

    assert firsts <= set(range(200, 401))
    assert len(firsts) > 10


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is nothing to compare"),
        ("grit = 3\n", 'there is no key "grit". Did you mean "grid"?'),
        ('[grid]\n"run.sede" = [1]\n', 'there is no key "run.sede". Did you mean "seed"?'),
        ('[grid]\n"seed" = [1]\n', '"seed" is no key of a case'),
        ('[grid]\n"run.seed" = []\n', 'grid."run.seed" has no values'),
        ('[grid]\n"run.seed" = [-1]\n', "run.seed = -1"),
        ('[grid]\n"run.steps.more" = [1]\n', '"run.steps.more" goes into "steps", which is a value'),
        ('[ranges]\n"run.seed" = {low = 1, high = 2}\n', "Say how many configurations: samples = 20"),
        ("samples = 0\n", "samples: input should be greater than or equal to 1"),
        ("[grid\n", "cannot be read"),
        ('best = "cheap"\n', "best: input should be"),
        (f'[grid]\n"run.seed" = {list(range(200))}\n"run.steps" = {list(range(200))}\n', "make 40000 configurations"),
    ],
)
def test_a_wrong_plan_is_one_sentence(write, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_plan(write(text))

    assert said in str(raised.value)


def test_a_plan_that_is_not_there_names_its_neighbour(write, tmp_path: Path) -> None:
    write("")

    with pytest.raises(ConfigError, match=r'There is no experiment file .*plam\.toml\. Did you mean "plan\.toml"\?'):
        read_plan(tmp_path / "plam.toml")


def test_a_folder_belongs_to_one_plan(write, tmp_path: Path) -> None:
    file = write('[grid]\n"run.seed" = [1, 2]\n')
    Experiment(read_plan(file), file, tmp_path / "out")
    Experiment(read_plan(file), file, tmp_path / "out")  # the same once more
    file = write('[grid]\n"run.seed" = [1, 3]\n')

    with pytest.raises(ConfigError, match="holds an experiment with another plan"):
        Experiment(read_plan(file), file, tmp_path / "out")


def test_a_folder_with_something_else_in_it_is_left_alone(write, tmp_path: Path) -> None:
    file = write('[grid]\n"run.seed" = [1, 2]\n')

    with pytest.raises(ConfigError, match="is not empty and no experiment"):
        Experiment(read_plan(file), file, tmp_path)

    assert sorted(one.name for one in tmp_path.iterdir()) == ["case.toml", "plan.toml"]


def test_runs_are_told_what_the_user_told_open_mpi_and_nothing_of_a_launcher_or_ray(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_MCA_btl_sm_backing_directory": "/dev/shm/mine", "LANG": "C"}
    foreign = {"OMPI_COMM_WORLD_RANK": "0", "PMIX_RANK": "0", "RAY_ADDRESS": "here:6379", "OMPI_MCA_btl": "self"}
    for name, value in (told | foreign).items():
        monkeypatch.setenv(name, value)

    given = surroundings()

    assert told.items() <= given.items()
    assert not foreign.keys() & given.keys()


def test_what_the_user_says_about_messages_holds_for_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_MCA_btl", "self,tcp")

    assert surroundings()["OMPI_MCA_btl"] == "self,tcp"


def test_recorded_truth_is_found_by_the_inputs_bit_for_bit() -> None:
    inputs = np.array([[0.0, 1.0], [-0.0, 1.0], [np.nextafter(1.0, 2.0), 1.0]])
    truth = RecordedTruth((1,))
    truth.hold(TapeCall(1, 0, 0.1, np.arange(3), inputs, np.array([[10.0], [20.0], [30.0]])))

    assert truth(inputs[[2, 0, 1]], 0.1).tolist() == [[30.0], [10.0], [20.0]]


@given(accepted=SHARES, more=SHARES, answer=st.floats(0.0, 1e-3), training=st.floats(0.0, 10.0))
def test_more_accepted_is_never_foretold_to_be_slower(
    accepted: float, more: float, answer: float, training: float
) -> None:
    physics = PhysicsCost(loop=1.0, truth=0.5, elements=1000, ranks=2, steps=10)
    few, many = sorted((int(1000 * accepted), int(1000 * more)))

    trained = TrainingCost((training,), lag=5)  # of ten steps
    slow, fast = (
        predicted_speedup(physics, summary(accepted=count, fallback=1000 - count, answer=answer), trained, 2)
        for count in (few, many)
    )

    assert fast >= slow > 0


def test_what_never_asks_is_foretold_to_be_physics() -> None:
    physics = PhysicsCost(loop=1.0, truth=0.5, elements=1000, ranks=2, steps=10)

    assert predicted_speedup(physics, summary(disabled=1000, answer=1.0), TrainingCost((), 20), 2) == 1.0


@pytest.mark.parametrize(
    ("round_seconds", "cores", "delay"),
    [
        (0.1, 8, 0.0),  # it trains beside the ranks and is in time
        (0.5, 8, 0.3),  # they wait for what is left of it after 20 steps of 10 ms
        (0.1, 2, 0.05),  # two thirds of a core for each of three, until it is done
        (0.5, 2, 0.4),  # the same for 20 steps, and then they wait
    ],
)
def test_a_training_takes_its_share_of_full_cores_and_ranks_wait_where_it_is_late(
    round_seconds: float, cores: int, delay: float
) -> None:
    assert TrainingCost((round_seconds,) * 3, lag=20).delay(0.01, 2, cores) == pytest.approx(3 * delay)


def test_trainings_are_part_of_what_is_foretold() -> None:
    physics = PhysicsCost(loop=1.0, truth=0.5, elements=1000, ranks=2, steps=10)
    run = summary(accepted=1000)

    late = predicted_speedup(physics, run, TrainingCost((1.0,), lag=0), 8)

    assert predicted_speedup(physics, run, TrainingCost((), lag=0), 2) == pytest.approx(1.0 / 0.5)
    assert late == pytest.approx(1.0 / (0.5 + 1.0))


def test_costs_are_read_from_the_run_that_made_the_tape(tmp_path: Path) -> None:
    seconds = Seconds(total=10.0, setup=2.0, io=1.0, truth=3.0)
    summary(elements=4000, seconds=seconds, disabled=4000).write(tmp_path / "summary.json")

    assert physics_cost(tmp_path) == PhysicsCost(loop=7.0, truth=2.0, elements=4000, ranks=2, steps=10)
    with pytest.raises(ConfigError, match="Let the run that records the tape finish"):
        physics_cost(tmp_path / "nowhere")


def test_a_case_without_a_model_is_not_played(write) -> None:
    plan = read_plan(write('[set]\n"controller.mode" = "physics"\n[grid]\n"run.seed" = [1]\n'))

    with pytest.raises(ConfigError, match="asks no model"):
        case_for_tape(plan.configurations[0].case)


def test_the_table_has_a_column_for_every_key_that_was_varied(tmp_path: Path) -> None:
    first = outcome("a", settings={"run.seed": 1, "surrogate.params": {"width": 8}}, speedup=2.0)
    second = outcome("b", settings={"run.seed": 2})

    rows = rows_of([first, second])

    assert rows[0]["surrogate.params"] == '{"width": 8}'
    assert rows[1]["surrogate.params"] is None
    assert [row["run.seed"] for row in rows] == [1, 2]
    assert rows[0]["speedup"] == 2.0


def test_both_tables_say_the_same(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="the extra [experiment] is not installed")
    pytest.importorskip("pyarrow", reason="the extra [experiment] is not installed")
    outcomes = [outcome("a", settings={"run.seed": 1}, speedup=2.5), outcome("b", settings={"run.seed": 2})]

    write_tables(outcomes, tmp_path)

    text, binary = pandas.read_csv(tmp_path / "table.csv"), pandas.read_parquet(tmp_path / "table.parquet")
    assert text["speedup"].tolist() == binary["speedup"].tolist() == [2.5, 0.0]
    assert list(text.columns) == list(binary.columns)


def test_the_best_is_chosen_among_those_that_kept_their_target() -> None:
    fast = outcome("fast", kept=False, speedup=9.0, true_loss=0.5)
    good = outcome("good", speedup=3.0, true_loss=0.01)
    careful = outcome("careful", speedup=1.5, true_loss=0.001)
    slow = outcome("slow", speedup=0.5, true_loss=0.0)
    broken = outcome("broken", status="failed", speedup=99.0)
    everything = [fast, good, careful, slow, broken]

    assert best_of(everything, "speedup") is good
    assert best_of(everything, "loss") is careful
    assert best_of([fast, broken], "speedup") is None


def test_an_outcome_that_was_tampered_with_is_named(write, tmp_path: Path) -> None:
    file = write('[grid]\n"run.seed" = [1]\n')
    plan = read_plan(file)
    experiment = Experiment(plan, file, tmp_path / "out")
    place = tmp_path / "out" / "configurations" / plan.configurations[0].name
    place.mkdir(parents=True)
    (place / "outcome.json").write_text(json.dumps({"name": 3}))

    with pytest.raises(CouplerError, match=r"outcome\.json is no outcome of a configuration"):
        experiment.collect()


@given(st.lists(st.tuples(SHARES, st.floats(0.1, 10.0)), min_size=1, max_size=20))
def test_nothing_on_the_front_is_beaten_in_both(points: list[tuple[float, float]]) -> None:
    shown = [outcome(str(number), true_loss=loss, speedup=speed) for number, (loss, speed) in enumerate(points)]

    for one in front(shown):
        assert not any(other.true_loss <= one.true_loss and other.speedup > one.speedup for other in shown)


def test_colours_tell_the_setting_that_matters() -> None:
    shown = [
        outcome(f"{rate}{seed}", settings={"audit": rate, "seed": seed}, speedup=speed)
        for (rate, seed), speed in {(1, 1): 1.0, (1, 2): 1.1, (2, 1): 3.0, (2, 2): 3.1}.items()
    ]

    assert telling_setting(shown) == "audit"


def test_the_picture_is_drawn_where_there_is_something_to_see(tmp_path: Path) -> None:
    best = outcome("a", settings={"run.seed": 1}, speedup=2.0, true_loss=0.0)
    others = [outcome("b", settings={"run.seed": 2}, speedup=1.0, true_loss=0.01, kept=False)]

    assert draw_pareto([outcome(status="failed")], None, tmp_path / "none.png") is None
    assert draw_pareto([best, *others], best, tmp_path / "pareto.png") == tmp_path / "pareto.png"
    assert (tmp_path / "pareto.png").stat().st_size > 10_000
