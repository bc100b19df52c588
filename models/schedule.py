"""How a training goes in time: the size of its steps."""

import math

# A model that is trained further needs no large steps any more, they would only undo what it knows.
WARM_LEARNING_RATE = 0.3
_RAMP = 0.1


def learning_rate_share(progress: float) -> float:
    """Share of the largest step size at a progress from 0 to 1: a short ramp up, then a cosine down."""
    ramp = min(progress / _RAMP, 1.0)
    return max(ramp, 0.01) * (0.5 + 0.5 * math.cos(math.pi * max(0.0, (progress - _RAMP) / (1 - _RAMP)))) + 1e-4
