"""What a tape says of itself; every segment begins with it, so that each can be read alone."""

from dataclasses import dataclass

from coupler.operator import Signature


@dataclass(frozen=True)
class TapeHead:
    """Whose calls a tape holds, and which of them.

    Parameters
    ----------
    operator : str
        Name of the operator in the run.
    signature : Signature
        Its columns with units and bounds, its tolerances and conserved sums.
    mode : str
        The run's ``controller.mode``, ``physics`` or ``shadow``.
    every : int
        Every n-th step was recorded.
    share : float
        Share of the elements that was recorded, the same ones in every step.
    """

    operator: str
    signature: Signature
    mode: str
    every: int = 1
    share: float = 1.0
