"""The first threshold of a model: conformal risk control on elements it was not trained on."""

import numpy as np
from numpy.typing import NDArray


def risk_controlled_threshold(
    score: NDArray[np.float64], error: NDArray[np.float64], *, cap: float, target: float
) -> float:
    """Find the largest threshold whose expected capped loss on a new element is at most the target.

    With loss l_i = min(error_i / cap, 1) where score_i is below the threshold and 0 elsewhere, the largest threshold
    with (sum of l_i + 1) / (n + 1) <= target keeps the expected loss of an exchangeable element at most the target
    (conformal risk control, arXiv:2208.02814, theorem 1). The elements of a run are not exchangeable: it is where
    the controller starts, and no promise.

    Parameters
    ----------
    score, error : ndarray (n,)
        Score and error in units of tolerance of held-out elements. A score that is not finite is never accepted; an
        error that is not finite is a full loss.
    cap : float
        Error that counts as a full loss.
    target : float
        Wanted mean loss per decision.

    Returns
    -------
    float
        Accept where the score is *below* it; 0.0 if nothing may be accepted. It does not reach beyond the scores seen.

    Collective: no.
    """
    assert score.shape == error.shape, (score.shape, error.shape)
    assert cap > 0, cap
    loss = np.minimum(np.where(np.isfinite(error), error, np.inf) / cap, 1.0)
    usable = np.isfinite(score)
    order = np.argsort(score[usable], kind="stable")
    scores = score[usable][order]
    total = np.concatenate([[0.0], np.cumsum(loss[usable][order])])
    allowed = np.flatnonzero((total + 1.0) / (len(score) + 1) <= target)
    if not allowed.size or not scores.size:
        return 0.0
    accepted = int(allowed[-1])
    if accepted == len(scores):
        return float(np.nextafter(scores[-1], np.inf))
    # Strictly below the first score that is too much: equal scores go together.
    return float(scores[accepted])
