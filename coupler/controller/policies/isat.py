"""ISAT: answers are taken inside of ellipsoids in which they were found accurate.

Pope, Computationally efficient implementation of combustion chemistry using in situ adaptive tabulation, Combust.
Theory Model. 1 (1997); Lu and Pope, J. Comput. Phys. 228 (2009). There a table of linear leaves answers; here the
surrogate does, and the table says where: each leaf has an ellipsoid of accuracy, shaped by its accurate neighbours and
as large as no inaccurate held-out sample allows. It is made anew for every version, from all its held-out samples,
which is what growing leaf by leaf comes to.
"""

from dataclasses import dataclass, field

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coupler.controller.certificate import Tally
from coupler.controller.findings import Findings
from coupler.controller.limits import Floats
from coupler.controller.policies.policy import GateState, Introduction, Policy, Question, Rules

# The largest ellipsoid without an inaccurate sample is shrunk by this much of its radius.
_CARE = 0.8
# Largest half axis of an ellipsoid, in standard deviations of the held-out inputs.
_LARGEST_RADIUS = 1.0


@dataclass(frozen=True, eq=False)
class IsatState(GateState):
    """Where the gate stands, and the table.

    Parameters
    ----------
    centres : ndarray (leaves, n_in)
        Where the leaves are.
    shapes : ndarray (leaves, n_in, n_in)
        (x - centre)' shape (x - centre) is below 1 inside of a leaf's ellipsoid.
    """

    centres: Floats = field(default_factory=lambda: np.empty((0, 0)))
    shapes: Floats = field(default_factory=lambda: np.empty((0, 0, 0)))


class Isat(Policy):
    """Takes answers inside of ellipsoids of accuracy.

    Parameters
    ----------
    rules : Rules
        What it is to keep to, which it does not.
    error : float
        Error up to which an answer counts as accurate [tolerances].
    leaves : int
        Most leaves.
    neighbours : int
        Accurate samples that give a leaf its shape.
    """

    def __init__(self, rules: Rules, error: float = 1.0, leaves: int = 200, neighbours: int = 20) -> None:
        super().__init__(rules)
        if not error > 0 or leaves < 1 or neighbours < 1:
            raise ValueError(f"error = {error}, leaves = {leaves} and neighbours = {neighbours} must be above 0")
        self._error, self._leaves, self._neighbours = float(error), int(leaves), int(neighbours)

    def promoted(self, state: GateState, introduction: Introduction) -> GateState:
        """Make the table from the held-out samples; inside means a distance below 1."""
        held_out = introduction.held_out
        accurate = held_out.error <= self._error
        if not accurate.any():
            return IsatState(threshold=0.0)
        scale = held_out.inputs.std(axis=0)
        scale[scale == 0.0] = 1.0
        points = held_out.inputs / scale
        centres, shapes = self._table(points[accurate], points[~accurate])
        return IsatState(1.0, False, centres * scale, shapes / np.multiply.outer(scale, scale))

    def advance(self, state: GateState, findings: Findings, tally: Tally) -> GateState:
        """Learn nothing until the next version."""
        return state

    def scores(self, state: GateState, question: Question) -> Floats:
        """Give the distance to the nearest leaf, in units of its ellipsoid, squared."""
        assert isinstance(state, IsatState)
        distances = np.full(len(question.inputs), np.inf)
        if len(state.centres):
            _nearest(question.inputs, state.centres, state.shapes, distances)
        # An answer that is not finite must stay one for the checks that follow.
        return np.where(np.isfinite(question.score), distances, question.score)

    def _table(self, good: Floats, bad: Floats) -> tuple[Floats, Floats]:
        """Cover the accurate points, the ones with most room first, until all are or there are enough leaves."""
        shapes = np.stack([self._shape(point, good, bad) for point in good])
        covered = np.zeros(len(good), np.bool_)
        chosen: list[int] = []
        # Small determinants are large ellipsoids.
        for index in np.argsort(np.linalg.slogdet(shapes)[1], kind="stable").tolist():
            if covered[index]:
                continue
            chosen.append(index)
            if len(chosen) == self._leaves:
                break
            covered |= _squared(good - good[index], shapes[index]) < 1.0
        return good[chosen], shapes[chosen]

    def _shape(self, point: Floats, good: Floats, bad: Floats) -> Floats:
        offsets = good - point
        near = np.argsort((offsets**2).sum(axis=1), kind="stable")[: self._neighbours]
        spread = offsets[near].T @ offsets[near] / len(near)
        dimensions = len(point)
        # Directions nobody looked into are as narrow as the narrowest that was.
        metric = np.linalg.inv(spread + (1e-9 + 1e-3 * np.trace(spread) / dimensions) * np.eye(dimensions))
        free = _squared(bad - point, metric).min(initial=np.inf)
        room = _LARGEST_RADIUS**2 * np.linalg.eigvalsh(metric)[0]
        shape: Floats = metric / max(min(_CARE**2 * free, room), 1e-300)
        return shape


def _squared(offsets: Floats, metric: Floats) -> Floats:
    found: Floats = np.einsum("ni,ij,nj->n", offsets, metric, offsets)
    return found


@njit(cache=True, nogil=True)
def _nearest(inputs: Floats, centres: Floats, shapes: Floats, distances: NDArray[np.float64]) -> None:
    n_in = inputs.shape[1]
    for i in range(inputs.shape[0]):
        for leaf in range(centres.shape[0]):
            total = 0.0
            for j in range(n_in):
                for k in range(n_in):
                    total += (inputs[i, j] - centres[leaf, j]) * shapes[leaf, j, k] * (inputs[i, k] - centres[leaf, k])
            distances[i] = min(distances[i], total)
            if distances[i] < 1.0:
                break
