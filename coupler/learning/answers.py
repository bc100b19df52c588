"""The answers of a model to many elements at once, in this process and without a server."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from coupler.surrogate import Surrogate

Floats = NDArray[np.float64]

# Activations of so many rows stay in the cache.
_CHUNK_ROWS = 1024


class Answers(NamedTuple):
    """What a model said.

    Attributes
    ----------
    mean : ndarray (n, n_out)
        The answers.
    score : ndarray (n,)
        Their doubt.
    """

    mean: Floats
    score: Floats


@torch.inference_mode()
def answers(surrogate: Surrogate, inputs: Floats, dt: Floats) -> Answers:
    """Ask a model.

    Parameters
    ----------
    surrogate : Surrogate
        The model.
    inputs : ndarray (n, n_in)
        Operator inputs.
    dt : ndarray (n,)
        Time step of each element.

    Returns
    -------
    Answers

    Collective: no.
    """
    found = Answers(np.empty((len(inputs), len(surrogate.signature.outputs))), np.empty(len(inputs)))
    for start in range(0, len(inputs), _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        prediction = surrogate.predict(torch.from_numpy(inputs[rows]), torch.from_numpy(dt[rows]))
        found.mean[rows], found.score[rows] = prediction.mean.numpy(), prediction.score.numpy()
    return found
