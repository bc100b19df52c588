"""The gate: whether an answer may stand in for the truth, one pass over a batch, and what its audits add up to."""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coupler.controller.certificate import UNIT, AuditedSums
from coupler.errors import FieldMismatch
from coupler.operator import Signature
from coupler.records import Reason

Floats = NDArray[np.float64]

_ACCEPTED = int(Reason.ACCEPTED)
_SCORE = int(Reason.SCORE)
_BUDGET = int(Reason.BUDGET)
_NOT_FINITE = int(Reason.NOT_FINITE)
_OUT_OF_BOUNDS = int(Reason.OUT_OF_BOUNDS)
_NOT_CONSERVED = int(Reason.NOT_CONSERVED)
_OUT_OF_RANGE = int(Reason.OUT_OF_RANGE)


@dataclass(frozen=True, eq=False)
class Limits:
    """What every answer must keep whatever its score; arrays, prepared once per model.

    Parameters
    ----------
    range_lower, range_upper : ndarray (n_in,)
        Box of the inputs the model was trained on.
    lower, upper : ndarray (n_out,)
        Bounds of the output fields.
    before, after : ndarray (n_sums, n_in) and (n_sums, n_out)
        Weights of the conserved sums on inputs and outputs.
    slack : ndarray (n_sums,)
        Defect a sum may always have: sum of abs(weight) atol.
    slope : ndarray (n_sums, n_out)
        Further defect per abs(output): abs(weight) rtol.
    """

    range_lower: Floats
    range_upper: Floats
    lower: Floats
    upper: Floats
    before: Floats
    after: Floats
    slack: Floats
    slope: Floats

    @staticmethod
    def of(signature: Signature, range_lower: Floats, range_upper: Floats) -> "Limits":
        """Prepare the limits of an operator and a model.

        Parameters
        ----------
        signature : Signature
            Of the operator.
        range_lower, range_upper : ndarray (n_in,)
            Box of the inputs the model was trained on; infinities where there is none.

        Raises
        ------
        FieldMismatch
            If the box has not one number per input.

        Collective: no.
        """
        expected = (len(signature.inputs),)
        if np.shape(range_lower) != expected or np.shape(range_upper) != expected:
            raise FieldMismatch(
                f"The training range has shapes {np.shape(range_lower)} and {np.shape(range_upper)} where the operator "
                f"has {expected[0]} inputs ({', '.join(signature.input_names)}). Give one lower and one upper each."
            )
        after = _weights(signature, signature.output_names)
        return Limits(
            range_lower=np.array(range_lower, dtype=np.float64),
            range_upper=np.array(range_upper, dtype=np.float64),
            lower=np.array([column.lower for column in signature.outputs]),
            upper=np.array([column.upper for column in signature.outputs]),
            before=_weights(signature, signature.input_names),
            after=after,
            slack=np.abs(after) @ np.asarray(signature.atol),
            slope=np.abs(after) * np.asarray(signature.rtol),
        )


def judge(
    inputs: Floats,
    mean: Floats,
    score: Floats,
    limits: Limits,
    *,
    threshold: float,
    stopped: bool = False,
) -> NDArray[np.uint8]:
    """Decide, element by element, whether an answer may stand in for the truth.

    The hard checks come first: not finite, outside a field's bounds, a conserved sum off by more than the
    tolerances of its terms, inputs outside the training range. Then the score must be below the threshold, strictly,
    so that a threshold of 0 accepts nothing whatever a score claims.

    Parameters
    ----------
    inputs : ndarray (n, n_in)
        Operator inputs.
    mean, score : ndarray (n, n_out) and (n,)
        The surrogate's answer; the score only ranks, and counts as 0 where it is negative.
    limits : Limits
        Of the operator and the model.
    threshold : float
        On the score.
    stopped : bool
        The hard stop: what would be accepted is refused as ``BUDGET``.

    Returns
    -------
    ndarray (n,) of uint8
        A :class:`~coupler.records.Reason` each, ``ACCEPTED`` where the answer may stand.

    Raises
    ------
    FieldMismatch
        If the answer has another shape than the operator declares.

    Collective: no. Releases the GIL.
    """
    n, n_in, n_out = inputs.shape[0], limits.range_lower.size, limits.lower.size
    if inputs.shape != (n, n_in) or mean.shape != (n, n_out) or score.shape != (n,):
        raise FieldMismatch(
            f"Inputs {inputs.shape}, answer {mean.shape} and score {score.shape} do not fit together: the operator "
            f"declares {n_in} inputs and {n_out} outputs. A surrogate returns mean (n, {n_out}) and score (n,)."
        )
    reasons = np.empty(n, dtype=np.uint8)
    passed = _BUDGET if stopped else _ACCEPTED
    _judge(
        inputs, mean, score, threshold, passed,
        limits.range_lower, limits.range_upper, limits.lower, limits.upper,
        limits.before, limits.after, limits.slack, limits.slope, reasons,
    )  # fmt: skip
    return reasons


def losses(answer: Floats, truth: Floats, atol: Floats, rtol: Floats, cap: float) -> tuple[Floats, NDArray[np.int64]]:
    """Measure audited answers: :meth:`Signature.error` and its quantised loss in one pass.

    Parameters
    ----------
    answer, truth : ndarray (n, n_out)
        What the surrogate said and what is right.
    atol, rtol : ndarray (n_out,)
        Tolerance per output.
    cap : float
        Error that counts as a loss of 1 [tolerances].

    Returns
    -------
    error : ndarray (n,)
        In tolerances, infinite where it is not finite.
    loss : ndarray (n,) of int64
        min(error / cap, 1), rounded up [2**-32].

    Collective: no. Releases the GIL.
    """
    error, loss = np.empty(answer.shape[0]), np.empty(answer.shape[0], dtype=np.int64)
    _losses(answer, truth, atol, rtol, cap, error, loss)
    return error, loss


def audited_sums(
    reasons: NDArray[np.uint8],
    audited: NDArray[np.bool_],
    error: Floats,
    loss: NDArray[np.int64],
    audit_rate: float,
) -> AuditedSums:
    """Add up one call's decisions for the certificate.

    Parameters
    ----------
    reasons : ndarray (n,) of uint8
        What :func:`judge` said of every element, audited ones included.
    audited : ndarray (n,) of bool
        The coins.
    error, loss : ndarray (m,)
        Of the m audited elements, in order; infinity and 2**32 where the truth never arrived.
    audit_rate : float
        Probability of the coins.

    Returns
    -------
    AuditedSums
        Of this call on this rank.

    Collective: no. Releases the GIL.
    """
    assert reasons.shape == audited.shape and error.shape == loss.shape, (reasons.shape, error.shape, loss.shape)
    counts = np.zeros(8, dtype=np.int64)
    _count(reasons, audited, error, loss, counts)
    assert counts[1] == error.size, (int(counts[1]), error.size)
    return AuditedSums.of(audit_rate, counts)


def _weights(signature: Signature, names: tuple[str, ...]) -> Floats:
    sums = signature.conserved.values()
    rows = [[float(weights.get(name, 0.0)) for name in names] for weights in sums]
    return np.array(rows, dtype=np.float64).reshape(len(sums), len(names))


@njit(cache=True, nogil=True)
def _judge(
    inputs: Floats,
    mean: Floats,
    score: Floats,
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
    reasons: NDArray[np.uint8],
) -> None:
    for i in range(inputs.shape[0]):
        if not (np.isfinite(score[i]) and _finite(mean, i)):
            reasons[i] = _NOT_FINITE
        elif not _inside(mean, i, lower, upper):
            reasons[i] = _OUT_OF_BOUNDS
        elif not _conserved(inputs, mean, i, before, after, slack, slope):
            reasons[i] = _NOT_CONSERVED
        elif not _inside(inputs, i, range_lower, range_upper):
            reasons[i] = _OUT_OF_RANGE
        elif max(score[i], 0.0) < threshold:
            reasons[i] = passed
        else:
            reasons[i] = _SCORE


@njit(cache=True, nogil=True)
def _finite(rows: Floats, i: int) -> bool:
    finite = True
    for j in range(rows.shape[1]):
        finite &= np.isfinite(rows[i, j])
    return finite


# Written so that a value that is not a number is outside.
@njit(cache=True, nogil=True)
def _inside(rows: Floats, i: int, lower: Floats, upper: Floats) -> bool:
    inside = True
    for j in range(rows.shape[1]):
        inside &= (lower[j] <= rows[i, j]) & (rows[i, j] <= upper[j])
    return inside


@njit(cache=True, nogil=True)
def _conserved(
    inputs: Floats, mean: Floats, i: int, before: Floats, after: Floats, slack: Floats, slope: Floats
) -> bool:
    for k in range(slack.size):
        defect, allowed = 0.0, slack[k]
        for j in range(mean.shape[1]):
            defect += after[k, j] * mean[i, j]
            allowed += slope[k, j] * abs(mean[i, j])
        for j in range(inputs.shape[1]):
            if before[k, j] != 0.0:  # zero times a column that is not finite would be no number
                defect -= before[k, j] * inputs[i, j]
        if not abs(defect) <= allowed:
            return False
    return True


@njit(cache=True, nogil=True)
def _losses(
    answer: Floats, truth: Floats, atol: Floats, rtol: Floats, cap: float, error: Floats, loss: NDArray[np.int64]
) -> None:
    for i in range(answer.shape[0]):
        worst = 0.0
        for j in range(answer.shape[1]):
            scaled = abs(answer[i, j] - truth[i, j]) / (atol[j] + rtol[j] * abs(truth[i, j]))
            worst = max(worst, scaled) if np.isfinite(scaled) else np.inf
        error[i] = worst
        loss[i] = np.int64(np.ceil(min(worst / cap, 1.0) * UNIT))


# Order of the counts: the integer fields of AuditedSums.
@njit(cache=True, nogil=True)
def _count(
    reasons: NDArray[np.uint8],
    audited: NDArray[np.bool_],
    error: Floats,
    loss: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> None:
    counts[0] = reasons.size
    m = 0
    for i in range(reasons.size):
        accepted, withheld = reasons[i] == _ACCEPTED, reasons[i] == _BUDGET
        counts[2] += accepted
        counts[5] += withheld
        counts[7] += reasons[i] == _SCORE
        if audited[i]:
            if m < error.size:
                counts[3] += accepted * loss[m]
                counts[4] += accepted and error[m] > 1.0
                counts[6] += withheld * loss[m]
            m += 1
    counts[1] = m
