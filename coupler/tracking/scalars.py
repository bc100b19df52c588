"""What of a step can be drawn as a curve: names and numbers, for trackers that keep such."""

import math

from coupler.progress import Progress


def scalars(progress: Progress) -> dict[str, float]:
    """Give the finite numbers of a step by name: shares of decisions, bound, estimate, threshold, version.

    Collective: no.
    """
    named = {f"share/{name}": progress.share(name) for name in progress.decisions} | {
        "loss/bound": progress.loss_bound,
        "loss/estimate": progress.loss_estimate,
        "exceedance/bound": progress.exceedance_bound,
        "gate/threshold": progress.threshold,
        "model/version": float(progress.version),
        "run/seconds": progress.seconds,
    }
    return {name: value for name, value in named.items() if math.isfinite(value)}
