"""A training round from samples on disk to a registered version, or to a sentence that says why not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coupler.errors import CouplerError, PluginError
from coupler.field import Field
from coupler.learning.registry import Registry
from coupler.learning.samples import SampleBatch
from coupler.learning.store import SampleStore
from coupler.learning.trainer import TrainingTask, train, trained_range
from coupler.operator import Signature
from coupler.records import Reason

SIGNATURE = Signature(
    inputs=(Field("a", bounds=(0, None)), Field("b")),
    outputs=(Field("a", bounds=(0, None)),),
    atol=(1e-3,),
    rtol=(1e-2,),
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _batch(step: int, count: int) -> SampleBatch:
    """A decay whose speed depends on b."""
    random = np.random.default_rng(step)
    a, b = 10 ** random.uniform(-2, 1, count), random.uniform(-1, 1, count)
    dt = np.full(count, 0.5)
    return SampleBatch(
        inputs=np.stack([a, b], axis=1),
        dt=dt,
        truth=(a * np.exp(-dt * (1 + b**2)))[:, None],
        step=np.full(count, step),
        call=np.zeros(count, np.int64),
        ids=np.arange(count),
        reason=np.full(count, 7, np.uint8),
    )


def _task(folder: Path, **changes: Any) -> TrainingTask:
    values: dict[str, Any] = {
        "operator": "reaction",
        "surrogate": "coupler.models.mlp_ensemble:MLPEnsemble",
        "params": {"members": 2, "width": 16, "depth": 2, "epochs": 15},
        "signature": SIGNATURE.to_json(),
        "samples": str(folder / "samples"),
        "models": str(folder / "models"),
        "capacity": 5000,
        "seed": 1,
        "seconds": None,
        "cap": 5.0,
        "target": 0.1,
        "step": 10,
        "incumbent": None,
    }
    return TrainingTask(**(values | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder with 1500 samples of step 1."""
    SampleStore(tmp_path / "samples", "reaction", SIGNATURE).append(_batch(1, 1500))
    return tmp_path


def test_the_first_candidate_is_registered_with_what_is_known_of_it(folder: Path) -> None:
    outcome = train(_task(folder))

    card = outcome.candidate
    assert card is not None
    assert (card.version, card.step, card.operator) == (1, 10, "reaction")
    assert card.holdout_loss == outcome.candidate_loss
    assert outcome.incumbent_loss is None
    assert outcome.sentence
    # Ten per cent are held out: five standard deviations of 1500 coins.
    assert abs(card.samples - 1350) < 5 * 12
    assert card.threshold > 0
    assert card.holdout_accepted > 0.5
    assert Registry(folder / "models").card("reaction", 1) == card


def test_the_same_task_gives_the_same_weights(folder: Path) -> None:
    first = train(_task(folder))
    second = train(_task(folder, models=str(folder / "elsewhere")))

    assert first.candidate is not None
    assert second.candidate is not None
    assert first.candidate.sha256 == second.candidate.sha256
    assert first.candidate.threshold == second.candidate.threshold


def test_a_task_survives_json(folder: Path) -> None:
    task = _task(folder, seconds=2.5, incumbent=3)

    assert TrainingTask.model_validate_json(task.model_dump_json()) == task


def test_a_better_candidate_follows_the_incumbent(folder: Path) -> None:
    train(_task(folder, params={"members": 2, "width": 16, "depth": 2, "epochs": 2}))
    SampleStore(folder / "samples", "reaction", SIGNATURE).append(_batch(2, 1500))

    outcome = train(_task(folder, step=20, incumbent=1))

    assert outcome.candidate is not None
    assert outcome.candidate.version == 2
    assert outcome.incumbent_loss is not None
    assert outcome.candidate_loss is not None
    assert outcome.candidate_loss < outcome.incumbent_loss


def test_a_worse_candidate_is_not_registered_and_the_sentence_says_why(folder: Path) -> None:
    good = train(_task(folder))

    outcome = train(_task(folder, step=20, incumbent=1, params={"members": 2, "width": 2, "depth": 1, "epochs": 1}))

    assert good.candidate is not None
    assert outcome.candidate is None
    assert "not below" in outcome.sentence
    assert outcome.incumbent_loss == pytest.approx(good.candidate.holdout_loss)
    assert Registry(folder / "models").versions("reaction") == [1]


def test_samples_of_later_steps_do_not_count(folder: Path) -> None:
    alone = train(_task(folder))
    SampleStore(folder / "samples", "reaction", SIGNATURE).append(_batch(11, 1500))

    again = train(_task(folder, models=str(folder / "elsewhere")))

    assert alone.candidate is not None
    assert again.candidate is not None
    assert alone.candidate.sha256 == again.candidate.sha256


def test_truth_that_is_not_finite_is_not_learned(tmp_path: Path) -> None:
    batch = _batch(1, 1500)
    batch.truth[::7] = np.nan
    SampleStore(tmp_path / "samples", "reaction", SIGNATURE).append(batch)

    outcome = train(_task(tmp_path))

    assert outcome.candidate is not None
    assert outcome.candidate.samples < 1300


def test_too_few_samples_give_no_candidate_but_a_sentence(tmp_path: Path) -> None:
    SampleStore(tmp_path / "samples", "reaction", SIGNATURE).append(_batch(1, 1))

    outcome = train(_task(tmp_path))

    assert outcome.candidate is None
    assert "too few" in outcome.sentence


def test_an_unknown_surrogate_is_refused(folder: Path) -> None:
    with pytest.raises(PluginError, match="MLPEnsemble"):
        train(_task(folder, surrogate="coupler.models.mlp_ensemble:MLPEnsembel"))


def test_an_incumbent_that_does_not_exist_is_refused(folder: Path) -> None:
    with pytest.raises(CouplerError, match="no version 4"):
        train(_task(folder, incumbent=4))


def test_the_range_of_a_positive_quantity_widens_by_a_factor() -> None:
    inputs = np.array([[1e-6, -1.0], [1.0, 3.0]])

    lower, upper = trained_range(SIGNATURE, inputs)

    # Two per cent of six decades, and two per cent of a span of four.
    assert lower[0] == pytest.approx(1e-6 / 10**0.12)
    assert upper[0] == pytest.approx(10**0.12)
    assert lower[1] == pytest.approx(-1.08)
    assert upper[1] == pytest.approx(3.08)


def test_the_range_ends_at_the_bounds_and_holds_what_was_seen() -> None:
    inputs = np.array([[0.0, 2.0], [1.0, 2.0]])

    lower, upper = trained_range(SIGNATURE, inputs)

    assert lower[0] == 0.0
    assert (lower <= inputs).all()
    assert (upper >= inputs).all()


def test_a_version_is_introduced_by_what_it_was_judged_on_and_its_regions(folder: Path) -> None:
    card = train(_task(folder, regions=5)).candidate

    assert card is not None
    known = Registry(folder / "models").introduction(card)
    assert len(known.held_out.score) == 1500 - card.samples
    assert np.minimum(known.held_out.error / 5.0, 1.0).mean() == pytest.approx(card.holdout_loss)
    assert np.mean(known.held_out.score < card.threshold) == card.holdout_accepted
    assert known.regions.centres.shape == (5, 2)
    assert len(set(known.regions.find(known.held_out.inputs).tolist())) > 1


def test_no_regions_and_no_anchors_can_be_asked_for(folder: Path) -> None:
    card = train(_task(folder, regions=0, anchors=0.0)).candidate

    assert card is not None
    assert card.anchor_loss is None
    assert Registry(folder / "models").introduction(card).regions.centres.shape == (0, 2)


def test_what_the_model_could_not_answer_is_learned_from_and_not_judged_on(folder: Path) -> None:
    failures = _batch(2, 3000)
    failures.reason[:] = Reason.SCORE
    SampleStore(folder / "samples", "reaction", SIGNATURE).append(failures)

    card = train(_task(folder)).candidate

    assert card is not None
    assert card.samples > 4200
    assert len(Registry(folder / "models").introduction(card).held_out.score) < 200


def test_failures_alone_give_no_candidate_but_a_sentence(tmp_path: Path) -> None:
    failures = _batch(1, 1500)
    failures.reason[:] = Reason.SCORE
    SampleStore(tmp_path / "samples", "reaction", SIGNATURE).append(failures)

    outcome = train(_task(tmp_path))

    assert outcome.candidate is None
    assert "0 to judge on" in outcome.sentence


def test_a_judgement_on_few_elements_says_so(tmp_path: Path) -> None:
    SampleStore(tmp_path / "samples", "reaction", SIGNATURE).append(_batch(1, 200))

    assert "held-out elements could tell" in train(_task(tmp_path)).sentence


def test_rounds_leave_one_segment_and_the_anchors_to_compare_versions_on(folder: Path) -> None:
    store = SampleStore(folder / "samples", "reaction", SIGNATURE)
    brief = {"members": 2, "width": 16, "depth": 2, "epochs": 4}

    first = train(_task(folder, capacity=800, params=brief)).candidate
    for step in (2, 3, 4):
        store.append(_batch(step, 800))
        train(_task(folder, capacity=800, params=brief, step=step, incumbent=1))

    assert first is not None
    assert first.anchor_loss is not None
    assert len(list((folder / "samples").iterdir())) == 1
    # One capacity to learn from, one to judge on and its share of anchors.
    assert len(store.read().samples) <= 2 * 800 + 80
    latest = Registry(folder / "models").versions("reaction")[-1]
    later = Registry(folder / "models").card("reaction", latest)
    assert later.anchor_loss is not None
    assert later.anchor_loss < first.anchor_loss


def test_a_training_starts_from_the_incumbent(folder: Path) -> None:
    train(_task(folder))
    brief = {"members": 2, "width": 16, "depth": 2, "epochs": 15}
    shorter = train(_task(folder, incumbent=1, seconds=0.0, step=20, params=brief))

    # No time to train: what is left is the incumbent, which is not better than itself.
    assert shorter.candidate is None
    assert shorter.candidate_loss == shorter.incumbent_loss


def test_a_training_ends_with_its_budget_of_processor_time(folder: Path) -> None:
    endless = {"members": 2, "width": 16, "depth": 2, "epochs": 10**6}

    card = train(_task(folder, seconds=0.5, params=endless)).candidate

    assert card is not None
    # Wall time on a full machine, so with much room; the epochs would take days.
    assert card.seconds < 60


def test_a_candidate_that_answers_no_numbers_is_not_registered(folder: Path) -> None:
    train(_task(folder))
    card = Registry(folder / "models").card("reaction", 1)
    broken = Registry(folder / "models").load(card)
    torch.nn.init.constant_(next(iter(broken.parameters())), float("nan"))
    facts = card.model_dump(exclude={"version", "signature", "sha256", "introduction"}) | {"step": 11}
    Registry(folder / "models").register(broken, facts)

    outcome = train(_task(folder, incumbent=2, seconds=0.0, step=20, params=card.params))

    assert outcome.candidate is None
    assert outcome.candidate_loss == outcome.incumbent_loss == 1.0
