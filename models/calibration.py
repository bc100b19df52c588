"""Scores in tolerances: what a surrogate doubts by is scaled by the errors it makes on samples held back."""

import torch
from torch import Tensor

from coupler.surrogate import Samples, Surrogate

# Share of elements whose error should not exceed their score.
_SCORE_COVERS = 0.9


@torch.no_grad()
def calibrate(surrogate: Surrogate, scale: Tensor, samples: Samples) -> None:
    """Set a scale so that most errors on some samples are below their score.

    Parameters
    ----------
    surrogate : Surrogate
        Whose score is its doubt times ``scale``.
    scale : Tensor ()
        Its buffer; overwritten.
    samples : Samples
        Elements that were held back from the training.
    """
    scale.fill_(1.0)
    prediction = surrogate.predict(torch.from_numpy(samples.inputs), torch.from_numpy(samples.dt))
    error = torch.from_numpy(surrogate.signature.error(prediction.mean.numpy(), samples.truth))
    ratio = error / prediction.score.clamp(min=torch.finfo(torch.float32).tiny)
    scale.copy_(torch.quantile(ratio, _SCORE_COVERS, interpolation="lower"))
