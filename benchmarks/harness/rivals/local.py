"""Systems without another process: the best forward in the rank itself, what torch does by itself, and the limit."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.limits import copies
from benchmarks.harness.rivals.system import LocalSystem, Unavailable
from benchmarks.harness.rivals.workload import DT, Forward, Workload, load
from benchmarks.harness.timing import Repeat


class Fused(LocalSystem):
    """The compiled form of the model, called on private arrays: the least that an answer costs."""

    def __init__(self, models: Path) -> None:
        super().__init__()
        self.name, self.facts = "best-inprocess", {"copies": "none", "forward": "fused"}
        self._models = models

    def open(self, workload: Workload) -> None:
        """Compile the model.

        Raises
        ------
        Unavailable
            If it has no compiled form.
        """
        forward = load(self._models, workload.model).fused()
        if forward is None:
            raise Unavailable(f"the model of {workload.case} has no compiled form")
        self._forward = forward
        self._mean, self._score = np.zeros((workload.elements, workload.columns)), np.zeros(workload.elements)

    def answer(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Call it."""
        self._forward(inputs, DT, self._mean, self._score)
        return self._mean


class Torch(LocalSystem):
    """The model as it is written, in this process.

    Parameters
    ----------
    models : Path
        Where the models were published.
    form : str
        ``eager`` or ``chunked``; see :class:`benchmarks.harness.rivals.workload.Forward`.
    """

    def __init__(self, models: Path, form: str) -> None:
        super().__init__()
        self.name, self.facts = f"inprocess-{form}", {"copies": "none", "forward": form}
        self._forward = Forward(str(models), form)

    def open(self, workload: Workload) -> None:
        """Look whether there is something to compute.

        Raises
        ------
        Unavailable
            If not.
        """
        if workload.model == "identity":
            raise Unavailable("an identity in the same process is nothing at all")

    def answer(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Call it."""
        return self._forward.answer(self.workload.model, inputs)


class MemoryCopy(LocalSystem):
    """Not a rival but a limit: what one copy in and one out cost, for the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.name, self.facts = "memory-copy", {"copies": "in+out", "forward": "none"}
        self._copies: Repeat

    def open(self, workload: Workload) -> None:
        """Make the arrays.

        Raises
        ------
        Unavailable
            If there is more to do than to copy.
        """
        if workload.model != "identity":
            raise Unavailable("copies are a limit of the identity only")
        self._copies = copies(workload.bytes, 2)

    def answer(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Copy in and out."""
        return inputs.copy().copy()

    def repeat(self, times: int) -> NDArray[np.float64]:
        """Time two copies."""
        return self._copies(times)
