"""Economics: whether asking the surrogate pays, from measured seconds; when it is switched off, and tried again.

With truth at c_t seconds per element, an answer at c_s, a share f that falls back and audits at rate p, a step is
1 / (f + p (1 - f) + c_s / c_t) times as fast as physics alone. All of that is measured, on the slowest rank, because
that is the one a step waits for. It depends on a clock, so deterministic runs do without.
"""

from dataclasses import dataclass, replace
from enum import Enum

# Steps that are judged together, and fewer where a surrogate that did not pay is only tried again.
WINDOW_STEPS, PROBE_STEPS = 10, 3
# So many windows in a row may cost more than physics before a surrogate that could pay is switched off.
_PATIENCE = 5
# Steps that it stays off, at first and at most, as they double.
_FIRST_PAUSE, _LONGEST_PAUSE = 300, 19200


@dataclass(frozen=True)
class Costs:
    """Seconds of one window on the slowest rank.

    Parameters
    ----------
    physics : float
        What the truth of all elements would have taken [s].
    coupled : float
        What truth and asking did take [s].
    best : float
        What asking and audits alone take: what is left if every answer is accepted [s].
    fallback : float
        What the truth of elements took whose answer was not accepted [s].
    """

    physics: float
    coupled: float
    best: float
    fallback: float = 0.0

    @property
    def speedup(self) -> float:
        """Times as fast as physics alone, as things are; 1 where nothing was measured."""
        return self.physics / self.coupled if self.coupled > 0 else 1.0

    @property
    def best_speedup(self) -> float:
        """The same if every answer were accepted."""
        return self.physics / self.best if self.best > 0 else 1.0


class Change(Enum):
    """What the last judgement changed."""

    NOTHING = "nothing"
    OFF = "switched off"
    ON = "switched on"


@dataclass(frozen=True)
class Economics:
    """The switch of one operator's surrogate; all its functions are pure, and every rank holds the same.

    Parameters
    ----------
    on : bool
        Whether the surrogate is asked.
    probing : bool
        Whether it is on for a short try.
    steps : int
        Steps since the present window or pause began.
    pause : int
        Length of the present or the next pause [steps].
    poor : int
        Windows in a row that cost more than physics.
    hopeful : bool
        Whether it would pay if every answer were accepted, as far as is known.
    missed : float
        What a better model might have spared since the last training began [s].
    absence : float
        What every step costs that it is off [s].
    change : Change
        What the last step or judgement changed.
    """

    on: bool = True
    probing: bool = False
    steps: int = 0
    pause: int = _FIRST_PAUSE
    poor: int = 0
    hopeful: bool = True
    missed: float = 0.0
    absence: float = 0.0
    change: Change = Change.NOTHING

    @property
    def window(self) -> int:
        """Steps after which the next judgement is due, while it is on."""
        return PROBE_STEPS if self.probing else WINDOW_STEPS

    def after_step(self, *, asked: bool) -> "Economics":
        """Count a step; a pause that is over ends in a short try.

        Parameters
        ----------
        asked : bool
            Whether there was a model to ask; steps without one are not counted while it is on.
        """
        if self.on:
            return replace(self, steps=self.steps + asked, change=Change.NOTHING)
        missed = self.missed + self.absence
        if self.steps + 1 < self.pause:
            return replace(self, steps=self.steps + 1, missed=missed, change=Change.NOTHING)
        return replace(self, on=True, probing=True, steps=0, missed=missed, change=Change.ON)

    @property
    def due(self) -> bool:
        """Whether a window is complete and wants to be judged."""
        return self.on and self.steps >= self.window

    def judged(self, costs: Costs) -> "Economics":
        """Judge a window: stay on, or switch off until it may have become worth a try."""
        hopeful, pays = costs.best_speedup >= 1.0, costs.speedup >= 1.0
        poor = 0 if pays else self.poor + 1
        absence = max(costs.physics - costs.best, 0.0) / self.steps
        judged = Economics(poor=poor, hopeful=hopeful, missed=self.missed + costs.fallback, absence=absence)
        if hopeful and (pays or (poor < _PATIENCE and not self.probing)):
            pause = _FIRST_PAUSE if pays else self.pause
            return replace(judged, pause=pause)
        # A try that failed makes the next one rarer: together they cost less than a per cent.
        pause = min(2 * self.pause, _LONGEST_PAUSE) if self.probing else self.pause
        return replace(judged, on=False, pause=pause, change=Change.OFF)

    def worth_training(self, seconds: float) -> bool:
        """Whether a training that takes so long is no more than what a better model might have spared meanwhile.

        Who rents until the rent has reached the price, and buys then, never pays more than twice what it would have
        cost to know (Karlin, Manasse, Rudolph & Sleator 1988).
        """
        return self.missed >= seconds

    def trained(self) -> "Economics":
        """Count anew what a better model might spare: a training has begun."""
        return replace(self, missed=0.0)

    def renewed(self) -> "Economics":
        """Give another version its chance: a surrogate that could pay is asked again at once."""
        if self.on:
            return replace(self, steps=0, poor=0, change=Change.NOTHING)
        if not self.hopeful:
            return replace(self, change=Change.NOTHING)
        return replace(self, on=True, probing=False, steps=0, poor=0, change=Change.ON)
