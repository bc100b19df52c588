"""Gate policies: each does what its authors say, and all keep one contract."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from coupler.controller import (
    UNIT,
    AuditedSums,
    Certificate,
    Controller,
    Findings,
    GateState,
    HeldOut,
    Introduction,
    Policy,
    Question,
    Rules,
)
from coupler.controller.findings import AUDITED, AUDITED_LOSS, SCORE_BINS, SCORE_ROWS
from coupler.controller.policies import STOCK, make_policy
from coupler.errors import ConfigError, PluginError

Floats = NDArray[np.float64]

CERTIFICATE = Certificate(delta=0.05, cap=5.0, audit_rate_min=0.02)
RULES = Rules(target=0.02, cap=5.0, certificate=CERTIFICATE, seed=7)
DECISIONS, RATE = 10_000, 0.02


def _held_out(count: int = 400) -> HeldOut:
    rng = np.random.default_rng(1)
    inputs = rng.normal(0.0, 1.0, (count, 2))
    # Right near the origin, wrong far from it.
    error = 0.2 + 4.0 * (np.linalg.norm(inputs, axis=1) > 1.0)
    return HeldOut(inputs, score=0.5 * error, error=error)


def _introduced(policy: Policy, threshold: float = 1.0) -> GateState:
    return policy.promoted(policy.start(), Introduction(threshold, _held_out(), CERTIFICATE.start()))


def _findings(loss: float, *, accepted: int = 6000, known_ratio: float = 0.5) -> Findings:
    """A step whose accepted answers have this mean loss."""
    audits = int(accepted * RATE)
    lost = int(loss * audits * UNIT)
    scores = np.zeros((SCORE_ROWS, SCORE_BINS), np.int64)
    scores[AUDITED, SCORE_BINS // 2], scores[AUDITED_LOSS, SCORE_BINS // 2] = audits, lost
    sums = AuditedSums(RATE, DECISIONS, int(DECISIONS * RATE), accepted, lost, refused=DECISIONS - accepted)
    return Findings(sums, scores, known=100, error=100.0, ratio=100 * known_ratio)


def _question(count: int = 1000, step: int = 3) -> Question:
    rng = np.random.default_rng(2)
    return Question(rng.normal(0.0, 1.0, (count, 2)), rng.random(count), np.arange(count), step, 0)


@pytest.mark.parametrize("name", STOCK)
def test_every_policy_accepts_nothing_before_the_first_version(name: str) -> None:
    # A threshold that no version was introduced with lets next to nothing through, whatever the scores' scale.
    assert make_policy(name, {}, RULES).start().threshold <= 1e-6


@pytest.mark.parametrize("name", STOCK)
def test_every_policy_is_pure_and_gives_finite_or_open_thresholds(name: str) -> None:
    policy = make_policy(name, {}, RULES)
    state, tally = _introduced(policy), CERTIFICATE.start()
    for loss in (0.0, 0.02, 0.5, 1.0, 0.0):
        findings = _findings(loss)
        tally = CERTIFICATE.add(tally, findings.sums)
        before = state.threshold

        once, again = policy.advance(state, findings, tally), policy.advance(state, findings, tally)

        assert state.threshold == before
        assert once.threshold == again.threshold >= 0
        state = once


@pytest.mark.parametrize("name", STOCK)
def test_every_policy_gives_an_element_the_same_score_in_any_company(name: str) -> None:
    policy, question = make_policy(name, {}, RULES), _question()
    state = _introduced(policy)

    whole = policy.scores(state, question)

    part = Question(question.inputs[300:310], question.score[300:310], question.ids[300:310], question.step, 0)
    assert np.array_equal(policy.scores(state, part), whole[300:310])


def test_always_opens_the_gate_and_never_keeps_it_shut() -> None:
    assert _introduced(make_policy("always", {}, RULES)).threshold == math.inf
    assert _introduced(make_policy("never", {}, RULES)).threshold == 0.0


def test_static_uses_the_users_number_and_conformal_static_the_held_out_one() -> None:
    assert _introduced(make_policy("static", {"threshold": 0.7}, RULES)).threshold == 0.7
    assert _introduced(make_policy("conformal_static", {}, RULES), threshold=0.3).threshold == 0.3


def test_proxima_moves_the_threshold_by_the_excess_error_over_the_slope() -> None:
    policy = make_policy("proxima", {"error": 0.1}, RULES)
    state = policy.promoted(
        policy.start(), Introduction(1.0, HeldOut(np.empty((0, 2)), np.empty(0), np.empty(0)), CERTIFICATE.start())
    )

    after = policy.advance(state, _findings(0.04, known_ratio=2.0), CERTIFICATE.start())

    # A mean error of 0.04 x 5 = 0.2 tolerances is 0.1 too much, and the slope is 2.
    assert after.threshold == pytest.approx(1.0 - 0.1 / 2.0, abs=1e-6)


def test_proxima_remembers_eight_steps() -> None:
    policy = make_policy("proxima", {"error": 0.1}, RULES)
    state = _introduced(policy)
    for _ in range(20):
        state = policy.advance(state, _findings(0.02), CERTIFICATE.start())

    assert len(vars(state)["errors"]) == len(vars(state)["ratios"]) == 8


def test_conformal_pid_shrinks_the_threshold_above_the_target_and_grows_it_below() -> None:
    policy = make_policy("conformal_pid", {}, RULES)
    state = _introduced(policy)

    assert policy.advance(state, _findings(0.2), CERTIFICATE.start()).threshold < 1.0
    assert policy.advance(state, _findings(0.0), CERTIFICATE.start()).threshold > 1.0


def test_random_takes_its_share_whatever_the_scores_and_other_elements_every_step() -> None:
    policy = make_policy("random", {"share": 0.3}, RULES)
    state = _introduced(policy)

    taken = [policy.scores(state, _question(step=step)) < state.threshold for step in (3, 4)]

    assert [part.mean() for part in taken] == [pytest.approx(0.3, abs=0.05)] * 2
    assert (taken[0] != taken[1]).any()


def test_isat_takes_answers_where_held_out_ones_were_right_and_nowhere_else() -> None:
    policy, question = make_policy("isat", {}, RULES), _question()
    state = _introduced(policy)

    taken = policy.scores(state, question) < state.threshold

    radius = np.linalg.norm(question.inputs, axis=1)
    assert taken[radius < 0.7].mean() > 0.8
    assert taken[radius > 1.2].mean() < 0.02


def test_isat_takes_nothing_where_no_held_out_answer_was_right_and_never_what_is_not_finite() -> None:
    policy = make_policy("isat", {"error": 0.1}, RULES)
    assert _introduced(policy).threshold == 0.0

    usual = make_policy("isat", {}, RULES)
    question = _question(3)._replace(score=np.array([np.nan, np.inf, 0.1]))

    assert not np.isfinite(usual.scores(_introduced(usual), question)[:2]).any()


def test_the_budget_watches_the_first_version_before_it_is_used() -> None:
    assert _introduced(make_policy("budget", {}, RULES)).stopped


def test_the_policy_of_the_page_is_one_of_the_users_own_and_does_what_it_says(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/policies.md").read_text(encoding="utf-8")
    code = next(part for part in page.split("```python\n")[1:] if "class Halving" in part).split("```")[0]
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")

    policy = make_policy(f"{tmp_path / 'mine.py'}:Halving", {"growth": 1.1}, RULES)

    state = _introduced(policy)
    assert policy.advance(state, _findings(0.2), CERTIFICATE.start()).threshold == 0.5
    assert policy.advance(state, _findings(0.0), CERTIFICATE.start()).threshold == pytest.approx(1.1)
    # Imports and comments aside, as long as the page says.
    assert len([line for line in code.splitlines() if line.strip() and not line.startswith("from")]) <= 15


def test_proxima_opens_a_closed_threshold_again_when_its_errors_are_old() -> None:
    policy = make_policy("proxima", {"error": 0.1}, RULES)
    state = _introduced(policy)
    state = policy.advance(state, _findings(1.0), CERTIFICATE.start())
    assert state.threshold == 0.0

    nothing = replace(_findings(0.0, accepted=0), known=100, ratio=50.0)
    for _ in range(9):
        state = policy.advance(state, nothing, CERTIFICATE.start())

    assert state.threshold > 0.0


def test_a_policy_of_the_users_own_is_named_by_module_and_class() -> None:
    policy = make_policy("coupler.controller.policies.static:Static", {"threshold": 0.25}, RULES)

    assert _introduced(policy).threshold == 0.25


@pytest.mark.parametrize(
    ("name", "params", "kind", "words"),
    [
        ("budgett", {}, ConfigError, 'Did you mean "budget"'),
        ("static", {"thresholds": 1.0}, PluginError, 'Did you mean "threshold"'),
        ("static", {"threshold": -1.0}, PluginError, "scores are not negative"),
        ("random", {"share": 1.5}, PluginError, "between 0 and 1"),
        ("proxima", {"window": 0}, PluginError, "above 0"),
        ("conformal_pid", {"rate": 0.0}, PluginError, "above 0"),
        ("isat", {"leaves": 0}, PluginError, "above 0"),
        ("coupler.controller:Controller", {}, PluginError, "is not a Policy"),
    ],
)
def test_a_policy_that_cannot_be_built_is_refused_in_words(
    name: str, params: dict[str, object], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        Controller(policy=name, params=params)
