"""What a version brings along beside its weights: its answers to held-out samples, and the regions it knows."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as read_arrays
from safetensors.numpy import save as arrays_as_bytes

from coupler.controller.policies import HeldOut
from coupler.controller.regions import Regions

_NAMES = ("inputs", "score", "error", "centres", "scale")


@dataclass(frozen=True, eq=False)
class ModelIntroduction:
    """What a trainer knows of a version and a controller wants to know.

    Parameters
    ----------
    held_out : HeldOut
        The answers it was judged on.
    regions : Regions
        Clusters of the inputs it was trained on.
    """

    held_out: HeldOut
    regions: Regions

    @staticmethod
    def empty(n_in: int) -> "ModelIntroduction":
        """Give the introduction of a version of which nothing is known."""
        return ModelIntroduction(HeldOut(np.empty((0, n_in)), np.empty(0), np.empty(0)), Regions.none(n_in))

    def to_bytes(self) -> bytes:
        """Give it as safetensors."""
        arrays = dict(zip(_NAMES, (*self.held_out, *self.regions), strict=True))
        return arrays_as_bytes({name: np.ascontiguousarray(array, np.float64) for name, array in arrays.items()})

    @staticmethod
    def from_bytes(content: bytes) -> "ModelIntroduction":
        """Read it again.

        Raises
        ------
        ValueError
            If that is not what :meth:`to_bytes` gave.
        """
        try:
            arrays = read_arrays(content)
            inputs, score, error, centres, scale = (arrays[name] for name in _NAMES)
        except (SafetensorError, KeyError) as damage:
            raise ValueError(f"it holds no {damage}" if isinstance(damage, KeyError) else str(damage)) from damage
        if not _fit(arrays):
            raise ValueError("its arrays do not fit each other")
        return ModelIntroduction(HeldOut(inputs, score, error), Regions(centres, scale))


def _fit(arrays: Mapping[str, NDArray[np.float64]]) -> bool:
    shapes = [arrays[name].shape for name in _NAMES]
    if any(arrays[name].dtype != np.float64 for name in _NAMES) or [len(shape) for shape in shapes] != [2, 1, 1, 2, 1]:
        return False
    (rows, n_in), score, error, (_, across), scale = shapes
    return score == error == (rows,) and scale == (n_in,) and across == n_in
