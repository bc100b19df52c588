"""The gate: whether an answer may stand in for the truth, one pass over a batch, and what its audits add up to."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coupler.controller.limits import Floats, Limits
from coupler.controller.loss import quantised_loss, scaled_error
from coupler.errors import FieldMismatch
from coupler.records import Reason

_ACCEPTED = int(Reason.ACCEPTED)
_SCORE = int(Reason.SCORE)
_BUDGET = int(Reason.BUDGET)
_ALARM = int(Reason.ALARM)
_NOT_FINITE = int(Reason.NOT_FINITE)
_OUT_OF_BOUNDS = int(Reason.OUT_OF_BOUNDS)
_NOT_CONSERVED = int(Reason.NOT_CONSERVED)
_OUT_OF_RANGE = int(Reason.OUT_OF_RANGE)
_AUDIT = int(Reason.AUDIT)

_BLOCK = 128
_NOBODY = np.empty(0, np.bool_)
_LARGEST = float(np.finfo(np.float64).max)


class Workspace(NamedTuple):
    """Arrays that one piece of elements is worked on with; they belong to a route and are used again and again.

    Attributes
    ----------
    audited : ndarray (n or more,) of int64
        Positions of the audited elements, in order.
    verdicts : ndarray (n or more,) of uint8
        Receives what the gate says of each of them.
    rest : ndarray (n or more,) of int64
        Receives the positions of the elements that go to the truth now, in order.
    rest_inputs : ndarray (n or more, n_in)
        Receives their inputs.
    reasons : ndarray (n,) of uint8
        Receives a :class:`~coupler.records.Reason` each.
    by_reason : ndarray (number of reasons,) of int64
        The elements by reason are added to it.
    sums : ndarray (8,) of int64
        What the certificate needs is added to it: the integer fields of :class:`AuditedSums`, in their order.
    """

    audited: NDArray[np.int64]
    verdicts: NDArray[np.uint8]
    rest: NDArray[np.int64]
    rest_inputs: Floats
    reasons: NDArray[np.uint8]
    by_reason: NDArray[np.int64]
    sums: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Gate:
    """One pass over an answered piece: judge it, measure the audits, take what is accepted, list what is left.

    The hard checks come first: not finite, outside a field's bounds, a conserved sum off by more than the tolerances
    of its terms, inputs outside the training range. Then the score must be below the threshold, strictly, so that a
    threshold of 0 accepts nothing whatever a score claims.

    Parameters
    ----------
    limits : Limits
        Of the operator and the model.
    atol, rtol : ndarray (n_out,)
        Tolerance per output.
    cap : float
        Error that counts as a loss of 1 [tolerances].
    """

    limits: Limits
    atol: Floats
    rtol: Floats
    cap: float

    @cached_property
    def _tiles(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Bounds of inputs and outputs, each as often as there are rows in a block: the shape of a block laid flat."""
        limits = self.limits
        finite = np.clip(limits.lower, -_LARGEST, None), np.clip(limits.upper, None, _LARGEST)
        ranges = (limits.range_lower, limits.range_upper)
        first, second, third, fourth = (np.tile(bound, _BLOCK) for bound in (*ranges, *finite))
        return first, second, third, fourth

    def settle(
        self,
        inputs: Floats,
        mean: Floats,
        score: Floats,
        truth: Floats,
        outputs: Floats,
        space: Workspace,
        *,
        threshold: float,
        stopped: bool = False,
        judges: bool = True,
        barred: NDArray[np.bool_] = _NOBODY,
    ) -> int:
        """Decide on every element and put the accepted answers in their place.

        Parameters
        ----------
        inputs : ndarray (n, n_in), C order
            Operator inputs.
        mean, score : ndarray (n, n_out), C order, and (n,)
            The surrogate's answer; the score only ranks, and counts as 0 where it is negative.
        truth : ndarray (m, n_out)
            Of the m audited elements.
        outputs : ndarray (n, n_out), C order
            Receives the truth where it was audited, the answer where it is accepted; the rest is for the truth.
        space : Workspace
            Holds the audited positions; receives everything else.
        threshold : float
            On the score.
        stopped : bool
            The hard stop: what would be accepted is refused as ``BUDGET``.
        judges : bool
            Whether answers are judged; if not, all are accepted.
        barred : ndarray (n,) of bool
            Elements that are not accepted because of an alarm; nobody where it is empty.

        Returns
        -------
        int
            How many elements are left for the truth.

        Raises
        ------
        FieldMismatch
            If the answer has another shape than the operator declares.

        Collective: no. Releases the GIL.
        """
        limits = self.limits
        _check_shapes(inputs, mean, score, limits)
        assert outputs.shape == mean.shape and truth.shape[1:] == mean.shape[1:], (outputs.shape, truth.shape)
        return int(
            _settle(
                inputs, mean, score, threshold, _BUDGET if stopped else _ACCEPTED, judges,
                *self._tiles, limits.lower, limits.upper, limits.before, limits.after, limits.slack, limits.slope,
                self.atol, self.rtol, self.cap, barred, truth, outputs,
                space.audited, space.verdicts, space.rest, space.rest_inputs, space.reasons, space.by_reason,
                space.sums,
            )
        )  # fmt: skip


def put_rows(rows: NDArray[np.int64], count: int, values: Floats, outputs: Floats) -> None:
    """Put values (count, n_out) into the rows of ``outputs`` that the first ``count`` positions name.

    Collective: no. Releases the GIL.
    """
    assert values.shape == (count, outputs.shape[1]), (values.shape, count, outputs.shape)
    _put_rows(rows, count, values, outputs)


def _check_shapes(inputs: Floats, mean: Floats, score: Floats, limits: Limits) -> None:
    n, n_in, n_out = inputs.shape[0], limits.range_lower.size, limits.lower.size
    if inputs.shape != (n, n_in) or mean.shape != (n, n_out) or score.shape != (n,):
        raise FieldMismatch(
            f"Inputs {inputs.shape}, answer {mean.shape} and score {score.shape} do not fit together: the operator "
            f"declares {n_in} inputs and {n_out} outputs. A surrogate returns mean (n, {n_out}) and score (n,)."
        )


# Column by column over a block that stays in the first cache: that is what a compiler can vectorise. The checks
# come in the reverse of their order, so that the one that comes first has the last word.
@njit(cache=True, nogil=True)
def _judge_block(
    inputs: Floats,
    mean: Floats,
    score: Floats,
    clean: bool,
    threshold: float,
    passed: int,
    range_lower: Floats,
    range_upper: Floats,
    lower: Floats,
    upper: Floats,
    before: Floats,
    after: Floats,
    slack: Floats,
    slope: Floats,
    given: Floats,
    said: Floats,
    reasons: NDArray[np.uint8],
) -> None:
    count = score.size
    codes = np.empty(_BLOCK, np.int64)  # as wide as the numbers that are compared
    for i in range(count):
        codes[i] = passed if max(score[i], 0.0) < threshold else _SCORE
    if slack.size > 0 or not clean:
        _transpose(inputs, given)
        _transpose(mean, said)
    if not clean:
        for j in range(inputs.shape[1]):
            _veto_outside(given[j], count, range_lower[j], range_upper[j], _OUT_OF_RANGE, codes)
    for k in range(slack.size):
        _veto_unconserved(given, said, count, before[k], after[k], slack[k], slope[k], codes)
    if not clean:
        for j in range(mean.shape[1]):
            _veto_outside(said[j], count, lower[j], upper[j], _OUT_OF_BOUNDS, codes)
        for j in range(mean.shape[1]):
            _veto_outside(said[j], count, -_LARGEST, _LARGEST, _NOT_FINITE, codes)
        _veto_outside(score, count, -_LARGEST, _LARGEST, _NOT_FINITE, codes)
    for i in range(count):
        reasons[i] = codes[i]


@njit(cache=True, nogil=True)
def _transpose(rows: Floats, columns: Floats) -> None:
    for j in range(rows.shape[1]):
        for i in range(rows.shape[0]):
            columns[j, i] = rows[i, j]


# Written so that a value that is not a number is outside.
@njit(cache=True, nogil=True)
def _veto_outside(values: Floats, count: int, lower: float, upper: float, veto: int, codes: NDArray[np.int64]) -> None:
    for i in range(count):
        inside = (lower <= values[i]) & (values[i] <= upper)
        codes[i] = codes[i] if inside else veto


@njit(cache=True, nogil=True)
def _veto_unconserved(
    given: Floats,
    said: Floats,
    count: int,
    before: Floats,
    after: Floats,
    slack: float,
    slope: Floats,
    codes: NDArray[np.int64],
) -> None:
    defect, allowed = np.zeros(_BLOCK), np.full(_BLOCK, slack)
    for j in range(said.shape[0]):
        for i in range(count):
            defect[i] += after[j] * said[j, i]
            allowed[i] += slope[j] * abs(said[j, i])
    for j in range(given.shape[0]):
        if before[j] != 0.0:  # zero times a column that is not finite would be no number
            for i in range(count):
                defect[i] -= before[j] * given[j, i]
    for i in range(count):
        codes[i] = codes[i] if abs(defect[i]) <= allowed[i] else _NOT_CONSERVED


# How many values are within their bounds: a sum, because that is vectorised where a truth value is not.
@njit(cache=True, nogil=True)
def _within(flat: Floats, least: Floats, most: Floats) -> np.int64:
    found = np.int64(0)
    for place in range(flat.size):
        found += np.int64((least[place] <= flat[place]) & (flat[place] <= most[place]))
    return found


@njit(cache=True, nogil=True)
def _finite(values: Floats) -> np.int64:
    found = np.int64(0)
    for i in range(values.size):
        found += np.int64(abs(values[i]) <= _LARGEST)
    return found


@njit(cache=True, nogil=True)
def _count_reason(reasons: NDArray[np.uint8], reason: int) -> int:
    found = 0
    for i in range(reasons.size):
        found += reasons[i] == reason
    return found


# An alarm counts where an answer could have been taken but for score or budget.
@njit(cache=True, nogil=True)
def _bar(barred: NDArray[np.bool_], reasons: NDArray[np.uint8]) -> None:
    for i in range(reasons.size):
        if barred[i] and reasons[i] <= _BUDGET:
            reasons[i] = _ALARM


# Answers are copied as they lie; what must not stand in for the truth is overwritten by it, here or by whoever
# computes the rest.
@njit(cache=True, nogil=True, error_model="numpy")
def _settle(
    inputs: Floats,
    mean: Floats,
    score: Floats,
    threshold: float,
    passed: int,
    judges: bool,
    range_least: Floats,
    range_most: Floats,
    least: Floats,
    most: Floats,
    lower: Floats,
    upper: Floats,
    before: Floats,
    after: Floats,
    slack: Floats,
    slope: Floats,
    atol: Floats,
    rtol: Floats,
    cap: float,
    barred: NDArray[np.bool_],
    truth: Floats,
    outputs: Floats,
    audited: NDArray[np.int64],
    verdicts: NDArray[np.uint8],
    rest: NDArray[np.int64],
    rest_inputs: Floats,
    reasons: NDArray[np.uint8],
    by_reason: NDArray[np.int64],
    sums: NDArray[np.int64],
) -> int:
    n, columns_in, columns_out = mean.shape[0], inputs.shape[1], mean.shape[1]
    audits, met, left = truth.shape[0], 0, 0
    flat_inputs, flat_mean, flat_outputs = inputs.reshape(-1), mean.reshape(-1), outputs.reshape(-1)
    given, said = np.empty((columns_in, _BLOCK)), np.empty((columns_out, _BLOCK))
    sums[0] += n
    sums[1] += audits
    for first in range(0, n, _BLOCK):
        last = min(first + _BLOCK, n)
        block, said_flat = slice(first, last), slice(first * columns_out, last * columns_out)
        why, doubt = reasons[block], score[block]
        if judges:
            given_flat = slice(first * columns_in, last * columns_in)
            good = _within(flat_mean[said_flat], least, most)
            good += _within(flat_inputs[given_flat], range_least, range_most) + _finite(doubt)
            _judge_block(
                inputs[block], mean[block], doubt, good == (columns_in + columns_out + 1) * why.size, threshold, passed,
                range_least, range_most, lower, upper, before, after, slack, slope, given, said, why,
            )  # fmt: skip
        else:
            why[:] = _ACCEPTED
        if barred.size > 0:
            _bar(barred[block], why)
        sums[2] += _count_reason(why, _ACCEPTED)
        sums[5] += _count_reason(why, _BUDGET)
        sums[7] += _count_reason(why, _SCORE)
        flat_outputs[said_flat] = flat_mean[said_flat]
        while met < audits and audited[met] < last:
            i = audited[met]
            error = scaled_error(mean, i, truth, met, atol, rtol)
            loss = quantised_loss(error, cap)
            if reasons[i] == _ACCEPTED:
                sums[3] += loss
                sums[4] += error > 1.0
            elif reasons[i] == _BUDGET:
                sums[6] += loss
            verdicts[met] = reasons[i]
            reasons[i] = _AUDIT
            for j in range(columns_out):
                outputs[i, j] = truth[met, j]
            met += 1
        for reason in range(_AUDIT + 1):
            by_reason[reason] += _count_reason(why, reason)
        if barred.size > 0:
            by_reason[_ALARM] += _count_reason(why, _ALARM)
        for i in range(why.size):
            rest[left] = first + i
            left += (why[i] != _ACCEPTED) & (why[i] != _AUDIT)
    for k in range(left):
        for j in range(columns_in):
            rest_inputs[k, j] = inputs[rest[k], j]
    return left


@njit(cache=True, nogil=True)
def _put_rows(rows: NDArray[np.int64], count: int, values: Floats, outputs: Floats) -> None:
    for k in range(count):
        for j in range(outputs.shape[1]):
            outputs[rows[k], j] = values[k, j]
