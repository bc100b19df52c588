"""The surrogate's own compiled function as a form: rows are read and written where they lie."""

from collections.abc import Sequence

from coupler.fused import CompiledForward
from coupler.records import Rows
from coupler.routine import Routine
from coupler.serving.batches import cut
from coupler.serving.crew import Crew
from coupler.surrogate import Forward

# Fewer rows than this are not worth waking a thread for; so many pieces per thread even out what they cost.
_LEAST_DEALT, _MOST_DEALT, _PIECES_PER_THREAD = 512, 4096, 4


class FusedForm:
    """Answers by a compiled function, part by part, large ones in pieces for a crew.

    Parameters
    ----------
    forward : Forward
        The function.
    crew : Crew
        Who computes the pieces.

    Attributes
    ----------
    routine : Routine or None
        The same for compiled code to call, where the function is one of :mod:`coupler.fused`.
    """

    def __init__(self, forward: Forward, crew: Crew) -> None:
        self._forward, self._crew = forward, crew
        self.routine: Routine | None = None
        if isinstance(forward, CompiledForward):
            self.routine = forward.routine()
            if crew.threads > 1:
                self.routine = self.routine._replace(most=2 * _LEAST_DEALT - 1)

    def __call__(self, parts: Sequence[Rows]) -> None:
        """Answer every part in place."""
        total = sum(len(part.inputs) for part in parts) if self._crew.threads > 1 else 0
        if total < 2 * _LEAST_DEALT:
            for part in parts:
                self._forward(part.inputs, part.dt, part.mean, part.score)
            return
        rows = min(max(total // (_PIECES_PER_THREAD * self._crew.threads), _LEAST_DEALT), _MOST_DEALT)
        pieces = [piece for part in parts for piece in cut(part, rows)]
        self._crew.deal(lambda piece: self._forward(*piece), pieces)
