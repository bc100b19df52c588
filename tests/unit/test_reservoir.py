"""What a training learns from and is judged on, over many rounds and whatever is let go in between."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coupler.field import Field
from coupler.learning.reservoir import Reservoir, Selection
from coupler.learning.samples import COLUMNS, SampleBatch, unselected
from coupler.learning.store import SampleStore
from coupler.operator import Signature
from coupler.records import Reason

RULES = Reservoir(capacity=400, anchors=0.1, recent=0.5)
BEGAN = 5
SIGNATURE = Signature(inputs=(Field("u"), Field("v")), outputs=(Field("u"),), atol=(1e-6,), rtol=(1e-3,))


def _step(step: int, count: int = 60) -> SampleBatch:
    """A run that begins without a model, and drifts."""
    random = np.random.default_rng(step)
    audits = random.random(count) < 0.3
    return SampleBatch(
        inputs=random.normal(size=(count, 2)) + step * 0.3,
        dt=np.full(count, 0.5),
        truth=random.random((count, 1)),
        step=np.full(count, step),
        call=np.zeros(count, np.int64),
        ids=np.arange(count) * 3,
        reason=np.where(step <= BEGAN, Reason.NO_MODEL, np.where(audits, Reason.AUDIT, Reason.SCORE)).astype(np.uint8),
    )


def _steps(first: int, last: int) -> SampleBatch:
    return SampleBatch.join([_step(step) for step in range(first, last + 1)])


def _select(samples: SampleBatch, until: int = 1000) -> Selection:
    return RULES.select(samples, began_until=BEGAN, until=until)


def _needed(samples: SampleBatch, *until: int) -> SampleBatch:
    return samples.take(RULES.needed(samples, began_until=BEGAN, until=until))


def _held_out(rules: Reservoir, samples: SampleBatch) -> SampleBatch:
    """What is never learned from: all that a buffer without a limit would leave out."""
    learned = _names(
        Reservoir(10**6, rules.anchors, rules.recent).select(samples, began_until=BEGAN, until=1000).training
    )
    return samples.take(np.array([name not in learned for name in zip(*_keys(samples), strict=True)]))


def _keys(batch: SampleBatch) -> tuple[list[int], list[int], list[int]]:
    return batch.step.tolist(), batch.call.tolist(), batch.ids.tolist()


def _names(batch: SampleBatch) -> set[tuple[int, int, int]]:
    return set(zip(*_keys(batch), strict=True))


def _same(first: Selection, second: Selection) -> bool:
    return all(
        np.array_equal(getattr(getattr(first, part), name), getattr(getattr(second, part), name))
        for part in ("training", "judging", "anchors")
        for name in COLUMNS
    )


def test_everything_is_used_while_it_fits() -> None:
    few = _steps(1, 3)

    chosen = _select(few)

    assert len(chosen.training) + len(chosen.judging) == len(few)


def test_a_full_buffer_has_its_capacity_in_anchors_newest_and_history() -> None:
    chosen = _select(_steps(1, 60))

    steps = chosen.training.step
    assert len(steps) == 400
    assert (steps <= BEGAN).sum() >= 40
    # Of 60 samples a step, some held out, the newest 200 are those of three or four steps.
    assert (steps > 56).sum() >= 180
    assert len(set(steps[(steps > BEGAN) & (steps <= 56)].tolist())) > 30


def test_what_was_let_go_makes_no_difference_later() -> None:
    everything, kept = _steps(1, 10), _needed(_steps(1, 10), 10)

    for start in range(11, 100, 7):
        everything = SampleBatch.join([everything, _steps(start, start + 6)])
        kept = _needed(SampleBatch.join([kept, _steps(start, start + 6)]), start + 6)

        assert _same(_select(everything), _select(kept))


def test_the_order_of_delivery_makes_no_difference() -> None:
    whole = _steps(1, 40)
    mixed = whole.take(np.random.default_rng(0).permutation(len(whole)))

    assert _same(_select(whole), _select(mixed.sorted_once()))


def test_a_resumed_run_finds_what_the_run_had_at_its_checkpoint() -> None:
    checkpoint, later = 30, 45
    as_it_was = _select(_steps(1, checkpoint + 5), until=checkpoint + 5)
    kept = _needed(_steps(1, 20), 20)
    kept = _needed(SampleBatch.join([kept, _steps(21, later)]), later, checkpoint)

    resumed = SampleBatch.join([kept, _steps(checkpoint + 1, checkpoint + 5)]).sorted_once()

    assert _same(_select(resumed, until=checkpoint + 5), as_it_was)


def test_nothing_is_learned_from_the_future() -> None:
    assert _same(_select(_steps(1, 50), until=30), _select(_steps(1, 30)))


def test_samples_of_the_future_are_not_let_go() -> None:
    needed = _needed(_steps(1, 50), 30)

    assert _names(_steps(31, 50)) <= _names(needed)


def test_anchors_are_always_the_same() -> None:
    first, second = _select(_steps(1, 20)), _select(_steps(1, 80))

    assert _names(first.anchors) == _names(second.anchors)
    assert len(first.anchors) > 10
    young = {name for name in _names(first.training) if name[0] <= BEGAN}
    old = {name for name in _names(second.training) if name[0] <= BEGAN}
    assert len(young & old) >= 40


def test_held_out_samples_are_never_learned_from() -> None:
    rounds = [_select(_steps(1, last)) for last in range(5, 80, 9)]

    learned = set.union(*(_names(chosen.training) for chosen in rounds))
    judged = set.union(*(_names(chosen.judging) | _names(chosen.anchors) for chosen in rounds))

    assert not learned & judged


def test_a_version_is_judged_on_what_was_not_chosen_for_its_answer() -> None:
    chosen = _select(_steps(1, 60))

    assert unselected(chosen.judging.reason).all()
    assert not unselected(chosen.training.reason).all()


def test_what_the_model_could_not_answer_is_always_learned_from() -> None:
    steps = _steps(1, 6)

    chosen = _select(steps)

    failures = steps.take(~unselected(steps.reason))
    assert len(failures)
    assert _names(failures) <= _names(chosen.training)


def test_judging_samples_stand_for_all_decisions() -> None:
    # The truth of nine tenths was computed because the score was bad; their error would be 1, that of the others 0.
    samples = SampleBatch.join([_step(step, count=2000) for step in range(6, 9)])
    hard = samples.inputs[:, 0] > 2.5
    audits = np.random.default_rng(1).random(len(samples)) < 0.2
    samples.reason[:] = np.where(audits, Reason.AUDIT, Reason.SCORE)
    labelled = samples.take(audits | hard)

    judged = Reservoir(4000, 0.1, 0.5).select(labelled, began_until=6, until=10).judging

    share, count = (samples.inputs[:, 0] > 2.5).mean(), len(judged)
    # Five standard deviations of a share among so many.
    assert abs((judged.inputs[:, 0] > 2.5).mean() - share) < 5 * np.sqrt(share * (1 - share) / count)
    assert (labelled.inputs[:, 0] > 2.5).mean() > share + 0.2


def test_rare_regions_and_both_kinds_are_in_the_history() -> None:
    samples = _steps(1, 60)
    samples.inputs[:] = np.random.default_rng(0).normal(size=samples.inputs.shape)
    rare = (samples.step == 20) & (samples.ids < 30)
    samples.inputs[rare] += 1000.0

    steps = _select(samples).training

    history = steps.take((steps.step > BEGAN) & (steps.step < 55))
    assert (history.inputs[:, 0] > 500).sum() >= 5
    assert unselected(history.reason).any()
    assert not unselected(history.reason).all()


def test_values_that_are_not_finite_are_neither_used_nor_kept() -> None:
    samples = _steps(1, 30)
    samples.truth[::3] = np.nan
    samples.inputs[1::3, 0] = np.inf

    chosen, needed = _select(samples), _needed(samples, 30)

    assert np.isfinite(chosen.training.truth).all()
    assert np.isfinite(chosen.training.inputs).all()
    assert np.isfinite(needed.truth).all()


@pytest.mark.parametrize("count", [0, 1])
def test_no_sample_and_one_sample_are_no_trouble(count: int) -> None:
    chosen = _select(_step(1).take(np.arange(count)))

    assert len(chosen.training) + len(chosen.judging) == count


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=8),
    st.sampled_from([(0.0, 1.0), (0.0, 0.01), (0.1, 0.5), (0.9, 0.1), (0.5, 0.2)]),
)
def test_whatever_the_shares_the_capacity_is_kept_and_nothing_needed_is_let_go(
    rounds: list[int], shares: tuple[float, float]
) -> None:
    rules, last = Reservoir(150, *shares), BEGAN
    everything = kept = _steps(1, BEGAN)

    for steps in rounds:
        new = _steps(last + 1, last + steps)
        last += steps
        everything, kept = SampleBatch.join([everything, new]), SampleBatch.join([kept, new])
        kept = kept.take(rules.needed(kept, began_until=BEGAN, until=(last,)))

        chosen = rules.select(kept, began_until=BEGAN, until=last)
        assert _same(chosen, rules.select(everything, began_until=BEGAN, until=last))
        assert len(chosen.training) == min(150, len(everything) - len(_held_out(rules, everything)))
        assert len(kept) <= 2 * 150 + int(shares[0] * 150)  # to learn from, to judge on, and anchors to judge on


def test_many_rounds_stay_within_the_stated_bounds_on_disk(tmp_path: Path) -> None:
    store, rules = SampleStore(tmp_path, "reaction", SIGNATURE), Reservoir(500, 0.1, 0.5)
    files, sizes = [], []

    for step in range(1, 201, 5):
        store.append(_steps(step, step + 4))
        files.append(len(list(tmp_path.iterdir())))
        history = store.read()
        needed = rules.needed(history.samples, began_until=history.began_until, until=(step + 4,))
        store.compact(history, history.samples.take(needed))
        sizes.append(sum(path.stat().st_size for path in tmp_path.iterdir()))

    row = 8 * (2 + 1 + 1 + 3) + 1
    assert max(files) == 2
    assert len(list(tmp_path.iterdir())) == 1
    # Two capacities and the anchors to judge on; HDF5 fills its last chunks and adds some kilobytes of its own.
    assert max(sizes) < 1.5 * row * (2 * 500 + 50) + 40_000
