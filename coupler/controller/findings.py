"""Findings: what a step showed of the surrogate's errors, as integers that ranks add up exactly.

The truth of an element says how wrong the answer to it was, whether the answer was taken or not. Of accepted elements
that is known where they were audited; of those that fell back it is always known, and costs nothing more.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coupler.controller.certificate import UNIT, AuditedSums
from coupler.controller.limits import Floats
from coupler.controller.loss import quantised_loss
from coupler.controller.regions import REGION_NUMBERS
from coupler.records import Reason

Integers = NDArray[np.int64]

# Scores are sorted into bins, so many per octave, this far below and above the first threshold of the version.
BINS_PER_OCTAVE, _OCTAVES = 3, 8
SCORE_BINS = 2 * _OCTAVES * BINS_PER_OCTAVE
# Rows of a table of scores.
SCORE_ROWS = 4
TRUTHS = 5
AUDITED, AUDITED_LOSS, REFUSED, REFUSED_LOSS = range(SCORE_ROWS)
# Errors and ratios are counted in units of 2**-20, up to 2**12: sums of two thousand million elements are exact.
ERROR_UNIT = 2**20
_LARGEST_ERROR, _LEAST_SCORE = float(2**12), 1e-12

_ACCEPTED, _SCORE, _BUDGET, _ALARM = int(Reason.ACCEPTED), int(Reason.SCORE), int(Reason.BUDGET), int(Reason.ALARM)


def score_edges(unit: float) -> Floats:
    """Give the lower edges of the bins (SCORE_BINS,) for a version whose scores are counted from ``unit``."""
    edges: Floats = unit * 2.0 ** (np.arange(SCORE_BINS) / BINS_PER_OCTAVE - _OCTAVES)
    return edges


@dataclass(frozen=True, eq=False)
class Findings:
    """What one step found, of all ranks.

    Parameters
    ----------
    sums : AuditedSums
        What the certificate needs.
    scores : ndarray (SCORE_ROWS, SCORE_BINS) of int64
        By score: audited elements that the gate accepts and their summed loss [2**-32], elements that it refuses for
        their score, the budget or an alarm, and theirs. What is outside of all bins is in the first or the last.
    known : int
        Elements of which answer and truth are known.
    error, ratio : float
        Sum of their errors [tolerances], and of error over score.
    withheld, withheld_loss : int, float
        Elements that only a hard stop kept from being accepted, and the sum of their losses.
    regions : ndarray (regions, REGION_NUMBERS) of int64
        Audited answers by region, as :func:`~coupler.controller.regions.watch` adds them up.
    """

    sums: AuditedSums
    scores: Integers = field(default_factory=lambda: np.zeros((SCORE_ROWS, SCORE_BINS), np.int64))
    known: int = 0
    error: float = 0.0
    ratio: float = 0.0
    withheld: int = 0
    withheld_loss: float = 0.0
    regions: Integers = field(default_factory=lambda: np.zeros((0, REGION_NUMBERS), np.int64))

    @staticmethod
    def of(sums: AuditedSums, measures: "Measures", regions: Integers) -> "Findings":
        """Read what was counted, after it was added up over the ranks."""
        known, error, ratio, withheld, lost = measures.truths.tolist()
        return Findings(
            sums,
            scores=measures.scores,
            known=known,
            error=error / ERROR_UNIT,
            ratio=ratio / ERROR_UNIT,
            withheld=withheld,
            withheld_loss=lost / UNIT,
            regions=regions,
        )


class Measures(NamedTuple):
    """Where one rank counts during a step; integers, so that sums over ranks are exact in any order.

    Attributes
    ----------
    scores : ndarray (SCORE_ROWS, SCORE_BINS) of int64
        As in :class:`Findings`.
    truths : ndarray (TRUTHS,) of int64
        Elements whose answer and truth are known, their errors and ratios of error to score [2**-20], and those of them
        that only a hard stop kept from being accepted, and their losses [2**-32].
    outputs : ndarray (2, fields) of int64
        Of audited, accepted elements: the capped error of each output alone [2**-32], and how often it was above 1.
        Where elements are tiles, of each output field: the largest error of its cells.
    """

    scores: Integers
    truths: Integers
    outputs: Integers


@dataclass(frozen=True, eq=False)
class Scale:
    """What errors and scores are measured in.

    Parameters
    ----------
    atol, rtol : ndarray (n_out,)
        Tolerance per output.
    cap : float
        Error that counts as a loss of 1 [tolerances].
    unit : float
        Score that the bins are counted from.
    """

    atol: Floats
    rtol: Floats
    cap: float
    unit: float = 1.0


def measure(
    mean: Floats,
    score: Floats,
    rows: Integers,
    verdicts: NDArray[np.uint8],
    truth: Floats,
    scale: Scale,
    measures: Measures,
) -> None:
    """Compare answers with the truth that was computed, and add up what they show.

    Parameters
    ----------
    mean, score : ndarray (n, n_out) and (n,)
        The surrogate's answer to a piece.
    rows : ndarray (m,) of int64
        Positions of the elements whose truth is there.
    verdicts : ndarray (m,) of uint8
        What the gate said of each of them; an accepted one must have been audited.
    truth : ndarray (m, n_out)
        The truth.
    scale : Scale
        What is measured in.
    measures : Measures
        Are added to.

    Collective: no. Releases the GIL.
    """
    assert rows.shape == verdicts.shape == truth.shape[:1], (rows.shape, verdicts.shape, truth.shape)
    _measure(mean, score, rows, verdicts, truth, scale.atol, scale.rtol, scale.cap, scale.unit, *measures)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _bin(score: float, unit: float) -> int:
    place = np.floor(BINS_PER_OCTAVE * (np.log2(max(score, _LEAST_SCORE) / unit) + _OCTAVES))
    return int(min(max(place, 0.0), SCORE_BINS - 1.0))


@njit(cache=True, nogil=True, error_model="numpy")
def _measure(
    mean: Floats,
    score: Floats,
    rows: Integers,
    verdicts: NDArray[np.uint8],
    truth: Floats,
    atol: Floats,
    rtol: Floats,
    cap: float,
    unit: float,
    scores: Integers,
    truths: Integers,
    outputs: Integers,
) -> None:
    width = mean.shape[1] // outputs.shape[1]
    for k in range(rows.size):
        i, accepted = rows[k], verdicts[k] == _ACCEPTED
        if not accepted and verdicts[k] != _SCORE and verdicts[k] != _BUDGET and verdicts[k] != _ALARM:
            continue  # no answer that could have been taken
        worst = 0.0
        for output in range(outputs.shape[1]):
            largest = 0.0
            for j in range(output * width, (output + 1) * width):
                error = abs(mean[i, j] - truth[k, j]) / (atol[j] + rtol[j] * abs(truth[k, j]))
                largest = max(largest, error if np.isfinite(error) else np.inf)
            worst = max(worst, largest)
            if accepted:
                outputs[0, output] += quantised_loss(largest, cap)
                outputs[1, output] += largest > 1.0
        doubt = score[i] if np.isfinite(score[i]) else np.inf  # mode surrogate takes answers without one
        place, row = _bin(doubt, unit), AUDITED if accepted else REFUSED
        loss = quantised_loss(worst, cap)
        worst = min(worst, _LARGEST_ERROR)  # of errors and ratios, not of losses: a cap may be larger
        scores[row, place] += 1
        scores[row + 1, place] += loss
        truths[0] += 1
        truths[1] += np.int64(worst * ERROR_UNIT)
        if verdicts[k] == _BUDGET:
            truths[3] += 1
            truths[4] += loss
        truths[2] += np.int64(min(worst / max(doubt, _LEAST_SCORE), _LARGEST_ERROR) * ERROR_UNIT)
