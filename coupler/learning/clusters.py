"""Regions of the inputs: clusters of what a model was trained on."""

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from coupler.controller.regions import Regions

# More would move the centres by less than the clusters are wide.
_MOST_ROWS = 16_384
_ROUNDS = 25
# A column varies if it does so by more than rounding.
_VARIES = 1e-9


def find_regions(inputs: NDArray[np.float64], *, most: int, seed: int) -> Regions:
    """Divide the inputs into clusters by k-means.

    Parameters
    ----------
    inputs : ndarray (n, n_in)
        Finite inputs.
    most : int
        Most regions; fewer where fewer inputs differ, none if 0 or there are no inputs.
    seed : int
        Of the first centres (k-means++). The same inputs in the same order and the same seed give the same regions.

    Returns
    -------
    Regions
        Centres in units of each column's standard deviation; of a column that does not vary, of its size.

    Collective: no.
    """
    if most == 0 or not len(inputs):
        return Regions.none(inputs.shape[1])
    random = np.random.default_rng(seed)
    scale = column_scale(inputs)
    rows = np.sort(random.choice(len(inputs), min(len(inputs), _MOST_ROWS), replace=False))
    points = inputs[rows] / scale
    centres = np.unique(points, axis=0)
    if len(centres) > most:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of clusters that nothing lies in: they are left out
            centres, owner = kmeans2(points, most, iter=_ROUNDS, minit="++", rng=random)
        # Sorted, so that numbers of regions do not depend on which centre was drawn first.
        centres = np.unique(centres[np.unique(owner)], axis=0)
    return Regions(np.ascontiguousarray(centres), scale)


def column_scale(inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the standard deviation of each column; of one that does not vary its size, and 1 if that is zero, too."""
    size, spread = np.abs(inputs).max(axis=0), inputs.std(axis=0)
    return np.where(spread > _VARIES * size, spread, np.where(size > 0, size, 1.0))
