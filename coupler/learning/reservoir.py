"""What a training learns from: frozen anchors, the newest samples, and an even choice from everything in between.

Every rule is of one kind: of some elements those with the lowest numbers stay, and the number of an element is a hash
of its name. What a rule once let go it would never take again, so the samples that all rules let go need not be kept,
and the choice from what was kept is the choice from the whole run.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coupler.controller.regions import Regions
from coupler.learning.clusters import find_regions
from coupler.learning.draws import element_draws
from coupler.learning.samples import SampleBatch, unselected

Mask = NDArray[np.bool_]

MOST_JUDGED = 4096
"""Most held-out samples that a version is judged on, and that are handed over with it."""
# So many tell a loss of the usual target to a few parts in ten; where there are fewer young ones, older ones help out.
_ENOUGH_JUDGED = 500
# An element is on the same side in every round, so that no incumbent is judged on what it has learned.
_HELD_OUT_SHARE = 0.1
_HELD_OUT, _THINNING = 0x401D, 0x7417
# The strata are what they were at the first training, or a sample let go by one division would be missed by the next.
_STRATA, _SEED = 8, 0x57A7
# New ground lies far from where the run began: every doubling of the distance is a stratum of its own.
_MOST_DOUBLINGS = 12


@dataclass(frozen=True)
class Selection:
    """The samples of one training round.

    Parameters
    ----------
    training : SampleBatch
        What is learned from.
    judging : SampleBatch
        What is judged on: held out in every round, from about the time of the newest samples, and each chosen whatever
        it is like, so that they stand for the decisions of the run as it is now.
    anchors : SampleBatch
        Held out in every round as well, from the start of the run: always the same ones.
    """

    training: SampleBatch
    judging: SampleBatch
    anchors: SampleBatch


@dataclass(frozen=True)
class Reservoir:
    """The rules by which samples are kept and chosen.

    Parameters
    ----------
    capacity : int
        Most samples to learn from.
    anchors : float
        Share of them that are drawn from the first samples of the run and never replaced, in [0, 1).
    recent : float
        Share of them that are the newest ones, in (0, 1]. The rest is spread evenly over the strata of all samples
        that are older: regions of the input space, and whether the truth was asked for whatever the element was like
        or because the model could not answer.
    """

    capacity: int
    anchors: float
    recent: float

    def select(self, samples: SampleBatch, *, began_until: int, until: int) -> Selection:
        """Choose what a training learns from and is judged on.

        Parameters
        ----------
        samples : SampleBatch
            All there are, in the order of (step, call, id), each element once. Whether what :meth:`needed` let go is
            among them makes no difference.
        began_until : int
            Last step of the first samples of the run.
        until : int
            Last step that counts: a resumed run must not learn from its own future.

        Returns
        -------
        Selection

        Collective: no. A pure function of elements, whatever ranks they came from.
        """
        drawn = self._draw(samples, began_until, until)
        chosen = (drawn.training, drawn.judging, drawn.judged_anchors)
        return Selection(*(samples.take(rows) for rows in chosen))

    def needed(self, samples: SampleBatch, *, began_until: int, until: tuple[int, ...]) -> Mask:
        """Say which samples a training may still use.

        Parameters
        ----------
        samples, began_until
            As for :meth:`select`.
        until : tuple of int
            Steps to be ready for: the present one, and any from which the run may be resumed.

        Returns
        -------
        ndarray (n,) of bool
            Samples later than all of these steps are needed, too. Of the others, at most two capacities for each step,
            and the anchors' share of a third.

        Collective: no.
        """
        needed = samples.step > max(until)
        for step in until:
            drawn = self._draw(samples, began_until, step)
            needed |= drawn.training | drawn.judgeable | drawn.judged_anchors
        return needed

    def _draw(self, samples: SampleBatch, began_until: int, until: int) -> "_Drawn":
        draws = element_draws(samples.step, samples.call, samples.ids, purpose=_THINNING)
        held_out = element_draws(samples.step, samples.call, samples.ids, purpose=_HELD_OUT) < _HELD_OUT_SHARE
        held_out &= unselected(samples.reason)
        finite = np.isfinite(np.concatenate([samples.inputs, samples.truth], axis=1)).all(axis=1)
        there = finite & (samples.step <= until)
        first = there & (samples.step <= began_until)

        anchors = _lowest(draws, ~held_out & first, int(self.anchors * self.capacity))
        recent = _newest(samples.step, draws, ~held_out & there & ~anchors, int(self.recent * self.capacity))
        older = ~held_out & there & ~anchors & ~recent
        rest = self.capacity - int(anchors.sum()) - int(recent.sum())
        history = _spread(draws, _strata(samples, anchors), older, rest)

        most = min(MOST_JUDGED, self.capacity)
        judgeable = _newest(samples.step, draws, held_out & there, most)
        young = judgeable & (samples.step >= samples.step[recent].min(initial=until))
        return _Drawn(
            training=anchors | recent | history,
            judgeable=judgeable,
            judging=young | _newest(samples.step, draws, judgeable, _ENOUGH_JUDGED),
            judged_anchors=_lowest(draws, held_out & first, int(self.anchors * most)),
        )


@dataclass(frozen=True)
class _Drawn:
    """Rows by the rule that chose them; of those to judge on, what is kept is more than what is used."""

    training: Mask
    judgeable: Mask
    judging: Mask
    judged_anchors: Mask


def _lowest(draws: NDArray[np.float64], among: Mask, count: int) -> Mask:
    """Choose so many of some elements, those with the lowest numbers."""
    rows = np.flatnonzero(among)
    return _mask(len(among), rows[np.argsort(draws[rows], kind="stable")[:count]])


def _newest(step: NDArray[np.int64], draws: NDArray[np.float64], among: Mask, count: int) -> Mask:
    """Choose so many of some elements, the newest; of the step that fits in part those with the lowest numbers."""
    rows = np.flatnonzero(among)
    return _mask(len(among), rows[np.lexsort((draws[rows], -step[rows]))[:count]])


def _spread(draws: NDArray[np.float64], strata: NDArray[np.int64], among: Mask, count: int) -> Mask:
    """Choose so many of some elements: the lowest of every stratum, then the second lowest of every stratum, ..."""
    rows = np.flatnonzero(among)
    rows = rows[np.lexsort((draws[rows], strata[rows]))]
    _, starts, sizes = np.unique(strata[rows], return_index=True, return_counts=True)
    place = np.arange(len(rows)) - np.repeat(starts, sizes)
    return _mask(len(among), rows[np.lexsort((draws[rows], place))[:count]])


def _strata(samples: SampleBatch, anchors: Mask) -> NDArray[np.int64]:
    """Give each sample the number of its stratum: nearest cluster of the anchors, how far from it, selected or not."""
    kind = unselected(samples.reason).astype(np.int64)
    regions = find_regions(samples.inputs[anchors], most=_STRATA, seed=_SEED)
    if not len(regions.centres):
        return kind
    region, distance = _nearest(samples.inputs, regions)
    usual = np.median(distance[anchors])
    with np.errstate(divide="ignore", invalid="ignore"):
        doublings = np.log2(distance / usual) if usual > 0 else np.where(distance > 0, _MOST_DOUBLINGS, 0)
    shell = np.nan_to_num(np.ceil(np.clip(doublings, 0, _MOST_DOUBLINGS))).astype(np.int64)
    strata: NDArray[np.int64] = (region * (_MOST_DOUBLINGS + 1) + shell) * 2 + kind
    return strata


def _nearest(inputs: NDArray[np.float64], regions: Regions) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    region = regions.find(inputs)
    return region, np.linalg.norm(inputs / regions.scale - regions.centres[region], axis=1)


def _mask(length: int, rows: NDArray[np.intp]) -> Mask:
    mask = np.zeros(length, dtype=np.bool_)
    mask[rows] = True
    return mask
