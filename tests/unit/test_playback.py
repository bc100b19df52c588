"""Playback: the controller of a run in front of recorded truth, and what it makes of it."""

import math
from time import process_time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.harness.streams import SCENARIOS, overconfident, record, recorded, stationary
from coupler.controller import UNIT, Controller, HeldOut
from coupler.controller.policies import STOCK
from coupler.errors import ConfigError, CouplerError, FieldMismatch
from coupler.operator import Operator
from coupler.playback import Playback, play
from coupler.redraw import ErrorStream, Statement, follow, read_stream, stream_from_arrays, write_stream
from coupler.tape import Tape, TapeCall, TapeHead, TapeWriter

CAP, RATE = 2.0, 0.02
SHADOW = 4


def _stream(steps: int = 60, decisions: int = 500, seed: int = 3) -> ErrorStream:
    return record(overconfident, steps=steps, decisions=decisions, seed=seed)


def _after(stream: ErrorStream, shadow: int) -> ErrorStream:
    """The stream without its shadow phase, as `follow` counts that apart."""
    start = stream.first[shadow]
    return ErrorStream(stream.name, stream.score[start:], stream.error[start:], stream.first[shadow:] - start)


def test_with_every_element_audited_playing_is_following_to_the_last_bit() -> None:
    stream, controller = _stream(), Controller(cap=CAP, audit_rate=1.0)
    later = _after(stream, SHADOW)

    played = play(stream, controller, shadow=SHADOW, threshold=1.0)

    before = int(stream.first[SHADOW])
    found = follow(recorded(later), None, controller, steps=later.steps, redraws=1, before=before)
    assert played.decisions.sum() == found.decisions
    assert played.accepted.sum() == found.accepted[0] > 0
    assert played.loss.sum() / UNIT == found.true[0, Statement.LOSS]
    assert played.exceedances.sum() == found.true[0, Statement.EXCEEDANCE]


def test_with_coins_of_their_own_playing_and_following_agree_in_the_mean() -> None:
    stream, seeds = record(stationary, steps=60, decisions=2000, seed=3), range(40)
    later = _after(stream, SHADOW)

    played = [play(stream, Controller(cap=CAP, seed=seed), shadow=SHADOW, threshold=1.0) for seed in seeds]

    before = int(stream.first[SHADOW])
    found = follow(recorded(later), None, Controller(cap=CAP), steps=later.steps, redraws=400, before=before)
    shares, lost = ([float(getattr(each, key)) for each in played] for key in ("accepted_share", "true_loss"))
    for ours, theirs in ((shares, found.accepted / found.decisions), (lost, found.true[:, 0] / found.decisions)):
        # Four standard errors of the difference of the means.
        margin = 4 * math.sqrt(np.var(ours) / len(ours) + np.var(theirs) / len(theirs))
        assert abs(np.mean(ours) - np.mean(theirs)) < margin


def test_the_shadow_phase_counts_as_decisions_and_accepts_nothing() -> None:
    played = play(_stream(), Controller(cap=CAP, policy="always"), shadow=SHADOW)

    assert played.accepted[:SHADOW].sum() == played.asked[:SHADOW].sum() == 0
    assert (played.accepted[SHADOW:] == 500).all()
    assert played.accepted_share == pytest.approx(56 / 60)


def test_a_gate_that_never_opens_costs_the_answers_and_saves_nothing() -> None:
    played = play(_stream(), Controller(cap=CAP, policy="never"), shadow=SHADOW)

    assert (played.true_loss, played.accepted_share, played.truth_share) == (0.0, 0.0, 1.0)
    assert played.speedup(0.1) == pytest.approx(1 / (1 + 0.1 * 56 / 60))


def test_the_predicted_speedup_is_the_formula_of_fallback_audits_and_answers() -> None:
    counts = {"decisions": [1000], "asked": [1000], "accepted": [800], "audits": [16], "loss": [0], "exceedances": [0]}
    arrays = {key: np.array(value) for key, value in counts.items()}
    played = Playback(**arrays, bound=np.zeros(1), threshold=np.ones(1), stopped=np.zeros(1, np.bool_))

    assert played.speedup(0.05) == pytest.approx(1 / (0.2 + 0.02 * 0.8 + 0.05))


def test_the_target_is_kept_only_if_it_is_kept_at_every_step() -> None:
    stream = stream_from_arrays("burst", np.full((40, 100), 0.1), np.zeros((40, 100)))
    stream.error[stream.first[5] : stream.first[6]] = 5.0

    played = play(stream, Controller(cap=CAP, policy="always"), shadow=1)

    assert played.true_loss == pytest.approx(1 / 40)
    assert played.running_loss.max() == pytest.approx(1 / 6)
    assert played.kept(0.2) and not played.kept(0.1)


@pytest.mark.parametrize("policy", STOCK)
def test_every_policy_plays_and_the_same_seed_gives_the_same_record(policy: str) -> None:
    stream, controller = _stream(), Controller(cap=CAP, policy=policy, seed=5)

    once, again = play(stream, controller, shadow=SHADOW), play(stream, controller, shadow=SHADOW)

    for key, values in vars(once).items():
        np.testing.assert_array_equal(values, vars(again)[key])
    assert (once.accepted <= once.decisions).all() and (once.audits <= once.accepted).all()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_budget_keeps_the_target_on_every_stream(scenario) -> None:
    stream = record(scenario, steps=300, decisions=1000, seed=2)

    played = play(stream, Controller(cap=CAP, audit_rate=RATE), shadow=SHADOW)

    # Two steps are under way when a stream turns bad in mid-run, after 150 of them.
    assert played.running_loss.max() <= 0.02 + (2 / 150 if scenario.__name__ == "corrupted" else 0)
    assert played.true_loss <= 0.02
    assert played.accepted.sum() > 0


def test_a_policy_that_looks_at_inputs_sees_those_of_the_stream() -> None:
    rng = np.random.default_rng(4)
    inputs = rng.normal(0.0, 1.0, (30, 400, 2))
    # Wrong on one side of the plane, and the score does not say so.
    error = np.where(inputs[:, :, 0] > 0.3, 5.0, 0.1)
    stream = stream_from_arrays("half", np.full((30, 400), 0.1), error, inputs)

    played = play(stream, Controller(cap=CAP, policy="isat"), shadow=3)

    # Accurate elements are accepted for the most part, at a loss of next to none beside their own 0.05.
    assert played.accepted_share > 0.4
    assert played.true_loss < 0.06


def test_the_surrogate_mode_takes_every_answer_and_shadow_mode_audits_all() -> None:
    surrogate = play(_stream(), Controller(mode="surrogate", cap=CAP), shadow=SHADOW)
    shadow = play(_stream(), Controller(mode="shadow", cap=CAP), shadow=SHADOW)

    assert (surrogate.accepted[SHADOW:] == 500).all()
    assert (shadow.audits == shadow.accepted).all()


@given(
    score=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=30),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=50, deadline=None)
def test_any_score_and_error_are_counted_once_and_lose_at_most_one(score: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    errors = rng.choice([0.0, 0.5, 3.0, np.nan, np.inf], (2, len(score)))
    stream = stream_from_arrays("any", np.array([score, score]), errors)

    played = play(stream, Controller(cap=CAP, policy="static", params={"threshold": 1.0}), shadow=1, threshold=1.0)

    usable = np.isfinite(score) & (np.array(score) < 1.0)
    assert played.accepted[1] == usable.sum()
    assert 0 <= played.loss[1] <= played.accepted[1] * UNIT


def test_streams_without_steps_or_elements_or_with_one_element_are_played() -> None:
    nothing = play(stream_from_arrays("none", [], []), Controller(), shadow=0, threshold=1.0)
    empty = play(stream_from_arrays("empty", np.empty((3, 0)), np.empty((3, 0))), Controller(), shadow=1, threshold=1.0)
    single = play(
        stream_from_arrays("one", np.full((3, 1), 0.1), np.zeros((3, 1))), Controller(policy="always"), shadow=1
    )

    assert (nothing.true_loss, nothing.accepted_share, nothing.highest_bound) == (0.0, 0.0, 0.0)
    assert empty.decisions.tolist() == [0, 0, 0]
    assert single.accepted.tolist() == [0, 1, 1]


@pytest.mark.parametrize("shadow", [-1, 61])
def test_a_shadow_phase_outside_of_the_stream_is_refused_in_words(shadow: int) -> None:
    with pytest.raises(ConfigError, match="Set shadow between 0 and 60"):
        play(_stream(), Controller(), shadow=shadow)


def test_a_stream_with_nothing_to_find_a_threshold_from_is_refused_in_words() -> None:
    with pytest.raises(ConfigError, match="Set shadow to a few steps, or give held_out or threshold"):
        play(_stream(), Controller(), shadow=0)

    known = HeldOut(np.zeros((50, 1)), np.full(50, 0.1), np.zeros(50))
    assert play(_stream(), Controller(), shadow=0, held_out=known).decisions.sum() == 30_000


def test_inputs_come_back_from_a_file_and_must_belong_to_the_scores(tmp_path) -> None:
    stream = stream_from_arrays("with inputs", np.ones((2, 3)), np.zeros((2, 3)), np.arange(12.0).reshape(2, 3, 2))

    write_stream(stream, tmp_path / "stream.h5")

    assert np.array_equal(read_stream(tmp_path / "stream.h5").inputs, stream.inputs)
    with pytest.raises(FieldMismatch, match="row of inputs for every score"):
        stream_from_arrays("short", np.ones((2, 3)), np.zeros((2, 3)), np.ones((2, 2, 2)))


# A small operator on a tape.


def _square(inputs: NDArray[np.float64], dt: float) -> NDArray[np.float64]:
    return inputs**2 * dt


OPERATOR = Operator(_square, inputs=["u"], outputs=["u"], atol=0.02, rtol=0.0)


def _tape(folder, steps: int = 6, elements: int = 200) -> Tape:
    head = TapeHead(operator="square", signature=OPERATOR.signature, mode="physics", every=1, share=1.0)
    folder.mkdir()
    writer, rng = TapeWriter(folder, head), np.random.default_rng(1)
    for step in range(1, steps + 1):
        inputs = rng.uniform(0, 1, (elements, 1))
        writer.add(TapeCall(step, 0, 0.5, np.arange(elements), inputs, _square(inputs, 0.5)))
    writer.close()
    return Tape(folder)


def test_a_model_taught_on_the_first_steps_of_a_tape_is_played_on_the_rest(tmp_path) -> None:
    teach = pytest.importorskip("coupler.playback.teach").teach
    small = {"members": 2, "width": 8, "depth": 1, "epochs": 2}

    taught = teach(_tape(tmp_path / "tape"), "coupler.models.mlp_ensemble:MLPEnsemble", until=3, params=small)

    assert (taught.stream.steps, taught.shadow, taught.stream.score.size) == (6, 3, 1200)
    assert taught.stream.inputs.shape == (1200, 1)
    assert 30 < len(taught.held_out.score) < 90
    played = play(taught.stream, Controller(policy="always"), shadow=taught.shadow, held_out=taught.held_out)
    assert played.accepted_share == 0.5


def test_a_tape_without_samples_before_the_training_is_refused_in_words(tmp_path) -> None:
    teach = pytest.importorskip("coupler.playback.teach").teach

    with pytest.raises(CouplerError, match="no sample up to step 0"):
        teach(_tape(tmp_path / "tape"), "coupler.models.mlp_ensemble:MLPEnsemble", until=0)


def test_a_million_decisions_are_played_in_less_than_two_seconds() -> None:
    stream = record(stationary, steps=1000, decisions=1000, seed=1)
    play(_stream(), Controller(), shadow=SHADOW)  # compiles

    start = process_time()
    play(stream, Controller(), shadow=10)

    assert process_time() - start < 2.0
