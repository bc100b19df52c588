"""Conservation: answers are moved onto the sums that the operator keeps, and stay inside the bounds of the fields.

With A the weights of the sums, d the defects A (inputs - answer) and W a positive diagonal, W A' (A W A')^-1 d is the
change that keeps all sums and is smallest as |W^-1/2 change|. Here W = tol^2 b / (b + tol), with tol the tolerance of
an output and b its distance from the nearer bound: in the middle of the range the change is smallest in tolerances, as
with the controller's repair, and near a bound it shrinks with the distance, so that a trace of a species is corrected
by a share of itself and not below zero. In that norm a projection takes no answer further from a truth that keeps the
sums.

What is left of a gross error (a change larger than a quantity itself) goes back towards the inputs: they keep all sums
and lie inside the bounds, so every point on the way does. At the inputs themselves this says "nothing changes".
"""

import numpy as np
import torch
from numba import njit
from torch import Tensor

from coupler.lanes import LANES
from coupler.operator import Signature

# A pivot below this share of what it was is rounding: the sums depend on each other for this element.
_SINGULAR = 1e-13
# Defect, of the sum of the absolute terms and their tolerances, above which a sum has not been met.
_ROUNDING = 1e-12
# Rows of what the compiled form reads, before the weights of the sums.
_SOURCE, _LOWER, _UPPER, _ATOL, _RTOL, _INVOLVED, _FIRST_SUM = range(7)


class Conservation(torch.nn.Module):
    """Make answers keep the conserved sums of an operator, to rounding.

    Parameters
    ----------
    signature : Signature
        Its sums, bounds and tolerances; sums that follow from others (the mass from all elements) need no place.
    """

    weights: Tensor
    source: Tensor
    lower: Tensor
    upper: Tensor
    atol: Tensor
    rtol: Tensor
    involved: Tensor

    def __init__(self, signature: Signature) -> None:
        super().__init__()
        weights = _independent(signature)
        columns = {
            "weights": weights,
            "source": torch.tensor(signature.increments).clamp(min=0),
            "lower": torch.tensor([column.lower for column in signature.outputs], dtype=torch.float64),
            "upper": torch.tensor([column.upper for column in signature.outputs], dtype=torch.float64),
            "atol": torch.tensor(signature.atol, dtype=torch.float64),
            "rtol": torch.tensor(signature.rtol, dtype=torch.float64),
            "involved": weights.abs().sum(0) > 0,
        }
        for name, values in columns.items():
            self.register_buffer(name, values, persistent=False)

    def settle(self, inputs: Tensor, mean: Tensor) -> Tensor:
        """Give answers that keep the sums of their inputs.

        Parameters
        ----------
        inputs : Tensor (n, n_in), float64
            What the sums should be.
        mean : Tensor (n, n_out), float64
            Answers inside their bounds; one that is no number stays so.

        Returns
        -------
        Tensor (n, n_out)
            Inside the bounds; row i depends on row i only.
        """
        if not len(self.weights):
            return mean
        start = inputs[:, self.source]
        moved = self._step_back(start, self._project(start, mean))
        nothing = torch.clamp(start, self.lower, self.upper)
        most = torch.where(self.involved, start.abs() + self.atol, 0.0) @ self.weights.abs().T
        failed = (self._defect(start, moved).abs() - _ROUNDING * most > 0).any(1, keepdim=True)
        moved = torch.where(failed, nothing, moved)
        return torch.where(self.involved, moved, mean)

    def rows(self) -> Tensor:
        """Give what :func:`settle_lanes` reads."""
        source, involved = self.source.double(), self.involved.double()
        return torch.cat([torch.stack([source, self.lower, self.upper, self.atol, self.rtol, involved]), self.weights])

    def _defect(self, start: Tensor, answer: Tensor) -> Tensor:
        return torch.where(self.involved, start - answer, 0.0) @ self.weights.T

    def _project(self, start: Tensor, mean: Tensor) -> Tensor:
        tolerance = self.atol + self.rtol * mean.abs()
        room = torch.minimum(mean - self.lower, self.upper - mean)
        weight = tolerance.square() * (1.0 - tolerance / (room + tolerance))
        matrix = weight[:, None, :] * self.weights @ self.weights.T
        multipliers = _solved(matrix, self._defect(start, mean))
        return mean + weight * (multipliers @ self.weights)

    def _step_back(self, start: Tensor, moved: Tensor) -> Tensor:
        """Go towards the inputs until all is inside the bounds, but for rounding, which is cut off."""
        way = moved - start
        ratio = torch.ones_like(way)
        slack = _ROUNDING * self.atol
        for outside, bound in ((moved < self.lower - slack, self.lower), (moved > self.upper + slack, self.upper)):
            ratio = torch.where(outside & self.involved, (bound - start) / way, ratio)
        share = ratio.clamp(0.0, 1.0).amin(1, keepdim=True)
        return torch.clamp(torch.where(share < 1, start + share * way, moved), self.lower, self.upper)


def _independent(signature: Signature) -> Tensor:
    """Give the weights (sums, n_out) of those sums that do not follow from the ones before, each at most 1."""
    weights = torch.zeros(0, len(signature.outputs), dtype=torch.float64)
    for sums in signature.conserved.values():
        row = torch.tensor([[float(sums.get(name, 0.0)) for name in signature.output_names]], dtype=torch.float64)
        more = torch.cat([weights, row / row.abs().amax().clamp(min=torch.finfo(torch.float64).tiny)])
        if np.linalg.matrix_rank(more.numpy()) == len(more):
            weights = more
    return weights


def _solved(matrix: Tensor, defect: Tensor) -> Tensor:
    """Solve (n, sums, sums) systems by Cholesky's method, written out: a sum without a pivot gets no change."""
    size = matrix.shape[1]
    lower, inverse, result = dict[tuple[int, int], Tensor](), list[Tensor](), list[Tensor]()
    for k in range(size):
        for other in range(k + 1):
            total = matrix[:, k, other]
            for m in range(other):
                total = total - lower[k, m] * lower[other, m]
            if other < k:
                lower[k, other] = total * inverse[other]
            else:
                sound = total > _SINGULAR * matrix[:, k, k]
                inverse.append(torch.where(sound, torch.rsqrt(torch.where(sound, total, 1.0)), 0.0))
        forward = defect[:, k]
        for m in range(k):
            forward = forward - lower[k, m] * result[m]
        result.append(forward * inverse[k])
    for k in range(size - 1, -1, -1):
        for m in range(k + 1, size):
            result[k] = result[k] - lower[m, k] * result[m]
        result[k] = result[k] * inverse[k]
    return torch.stack(result, dim=1)


@njit(nogil=True)
def settling_space(rows):
    """Make the room that :func:`settle_lanes` works in; call it once per batch."""
    sums, n_out = len(rows) - _FIRST_SUM, rows.shape[1]
    return np.empty((2 * n_out + sums * (sums + 2) + 1, LANES))


@njit(nogil=True)
def settling_start(columns, rows, space):
    """Keep what the sums should be, before the columns of the inputs are used otherwise."""
    if len(rows) > _FIRST_SUM:
        for output in range(rows.shape[1]):
            space[output] = columns[int(rows[_SOURCE, output])]


@njit(nogil=True)
def settle_lanes(answers, rows, space):
    """See :meth:`Conservation.settle`: sixteen answers (n_out, 16), in place."""
    sums, n_out = len(rows) - _FIRST_SUM, rows.shape[1]
    if sums == 0:
        return
    start, weight = space[:n_out], space[n_out : 2 * n_out]
    matrix = space[2 * n_out : 2 * n_out + sums * sums].reshape((sums, sums, LANES))
    defect, inverse = space[-2 * sums - 1 : -sums - 1], space[-sums - 1 : -1]
    _set_up(start, answers, rows, weight, matrix, defect)
    _solve_lanes(matrix, defect, inverse)
    for output in range(n_out):
        if rows[_INVOLVED, output] > 0:
            for lane in range(LANES):
                change = 0.0
                for k in range(sums):
                    change += defect[k, lane] * rows[_FIRST_SUM + k, output]
                weight[output, lane] = answers[output, lane] + weight[output, lane] * change
    _step_back_lanes(start, weight, rows, space[-1])
    _take_settled(start, weight, rows, answers, space[-1])


@njit(nogil=True)
def _set_up(start, answers, rows, weight, matrix, defect):
    sums = len(defect)
    matrix[:], defect[:] = 0.0, 0.0
    for output in range(len(answers)):
        if rows[_INVOLVED, output] > 0:
            lower, upper, atol, rtol = (
                rows[_LOWER, output],
                rows[_UPPER, output],
                rows[_ATOL, output],
                rows[_RTOL, output],
            )
            for lane in range(LANES):
                value = answers[output, lane]
                tolerance = atol + rtol * abs(value)
                below, above = value - lower, upper - value
                room = below if below < above or below != below else above
                weight[output, lane] = tolerance * tolerance * (1.0 - tolerance / (room + tolerance))
            for k in range(sums):
                one = rows[_FIRST_SUM + k, output]
                for lane in range(LANES):
                    defect[k, lane] += one * (start[output, lane] - answers[output, lane])
                for other in range(k + 1):
                    both = one * rows[_FIRST_SUM + other, output]
                    if both != 0.0:
                        for lane in range(LANES):
                            matrix[k, other, lane] += both * weight[output, lane]


@njit(nogil=True)
def _solve_lanes(matrix, defect, inverse):
    """See :func:`_solved`; the multipliers replace the defects."""
    size = len(defect)
    for k in range(size):
        for other in range(k):
            for m in range(other):
                for lane in range(LANES):
                    matrix[k, other, lane] -= matrix[k, m, lane] * matrix[other, m, lane]
            for lane in range(LANES):
                matrix[k, other, lane] *= inverse[other, lane]
        for lane in range(LANES):
            whole = total = matrix[k, k, lane]
            for m in range(k):
                total -= matrix[k, m, lane] * matrix[k, m, lane]
                defect[k, lane] -= matrix[k, m, lane] * defect[m, lane]
            sound = total > _SINGULAR * whole
            inverse[k, lane] = 1.0 / np.sqrt(total) if sound else 0.0
            defect[k, lane] *= inverse[k, lane]
    for k in range(size - 1, -1, -1):
        for lane in range(LANES):
            for m in range(k + 1, size):
                defect[k, lane] -= matrix[m, k, lane] * defect[m, lane]
            defect[k, lane] *= inverse[k, lane]


@njit(nogil=True)
def _step_back_lanes(start, moved, rows, share):
    share[:] = 1.0
    for output in range(len(start)):
        if rows[_INVOLVED, output] > 0:
            lower, upper, slack = rows[_LOWER, output], rows[_UPPER, output], _ROUNDING * rows[_ATOL, output]
            for lane in range(LANES):
                value, first = moved[output, lane], start[output, lane]
                if value < lower - slack:
                    share[lane] = _smaller_share(share[lane], (lower - first) / (value - first))
                if value > upper + slack:
                    share[lane] = _smaller_share(share[lane], (upper - first) / (value - first))
    for output in range(len(start)):
        lower, upper = rows[_LOWER, output], rows[_UPPER, output]
        for lane in range(LANES):
            value = moved[output, lane]
            if share[lane] < 1.0:
                value = start[output, lane] + share[lane] * (value - start[output, lane])
            value = lower if value < lower else value
            moved[output, lane] = upper if value > upper else value


@njit(nogil=True)
def _take_settled(start, moved, rows, answers, failed):
    """Take what was moved where it keeps the sums, else the inputs."""
    failed[:] = 0.0
    left, most = np.empty(LANES), np.empty(LANES)
    for k in range(_FIRST_SUM, len(rows)):
        left[:], most[:] = 0.0, 0.0
        for output in range(len(start)):
            weight = rows[k, output]
            if rows[_INVOLVED, output] > 0:
                for lane in range(LANES):
                    left[lane] += weight * (start[output, lane] - moved[output, lane])
                    most[lane] += abs(weight) * (abs(start[output, lane]) + rows[_ATOL, output])
        for lane in range(LANES):
            if abs(left[lane]) - _ROUNDING * most[lane] > 0:
                failed[lane] = 1.0
    for output in range(len(start)):
        if rows[_INVOLVED, output] > 0:
            lower, upper = rows[_LOWER, output], rows[_UPPER, output]
            for lane in range(LANES):
                value = start[output, lane]
                value = lower if value < lower else value
                value = upper if value > upper else value
                answers[output, lane] = value if failed[lane] > 0 else moved[output, lane]


@njit(nogil=True)
def _smaller_share(share, ratio):
    """Give the smaller of two shares, at least nothing; one that is no number counts as nothing."""
    ratio = ratio if ratio > 0.0 else 0.0
    return ratio if ratio < share else share
