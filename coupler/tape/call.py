"""One call of an operator as a tape holds it: the rows of all ranks, sorted by id."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Step, call, dt and offset, eight bytes each.
_ENTRY_BYTES = 32


@dataclass(frozen=True, eq=False)
class TapeCall:
    """Elements that were evaluated together, with their truth.

    Parameters
    ----------
    step, call : int
        Time step, and number of the call within it, over all operators of the run.
    dt : float
        Time step of all elements, in the kernel's unit of time.
    ids : ndarray (n,) of int64
        Global ids, ascending; n may be 0.
    inputs : ndarray (n, n_in)
        Operator inputs, units as the operator declares them.
    truth : ndarray (n, n_out)
        What the operator gave.
    """

    step: int
    call: int
    dt: float
    ids: NDArray[np.int64]
    inputs: NDArray[np.float64]
    truth: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """Bytes on a tape."""
        return _ENTRY_BYTES + self.ids.nbytes + self.inputs.nbytes + self.truth.nbytes

    def __repr__(self) -> str:
        return f"TapeCall(step={self.step}, call={self.call}, dt={self.dt}: {len(self)} elements)"
