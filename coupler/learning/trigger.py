"""When to train, and how many samples to keep for it."""

from dataclasses import dataclass

_URGENT = 0.25


@dataclass(frozen=True)
class TrainingTrigger:
    """Say when a training is due from sample counts alone, so that every rank says the same.

    Parameters
    ----------
    first : int
        Samples needed for the first model.
    growth : float
        Share of the buffer that must be new before the next training, in (0, 1].
    capacity : int
        Samples the buffer holds.
    """

    first: int
    growth: float
    capacity: int

    def due(self, trained_on: int, available: int, *, urgent: bool = False) -> bool:
        """Decide whether to train now.

        Parameters
        ----------
        trained_on : int
            Samples there were, counted from the start of the run, when the last training began; 0 if there was none.
        available : int
            Samples there are, counted from the start of the run.
        urgent : bool
            Whether there is an alarm, or too much falls back: then a quarter of the new samples is enough.

        Collective: no; a pure function of numbers that all ranks share.
        """
        if trained_on == 0:
            return available >= self.first
        growth = self.growth * (_URGENT if urgent else 1.0)
        return available - trained_on >= growth * min(available, self.capacity)


# Of what is kept per step, so much may be unselected before the rest is cut: a model is judged on nothing else.
_UNSELECTED_SHARE = 0.5


@dataclass(frozen=True)
class KeepShares:
    """Which shares of the truth's answers to keep as samples, each in [0, 1].

    Parameters
    ----------
    unselected : float
        Of those computed whatever the element was like: audits, and everything where no model answered.
    selected : float
        Of those computed because a model could not answer.
    """

    unselected: float
    selected: float

    @property
    def largest(self) -> float:
        """The larger of the two."""
        return max(self.unselected, self.selected)


def keep_shares(unselected: int, selected: int, *, capacity: int, steps: int) -> KeepShares:
    """Say which shares to keep, so that the buffer is renewed once in so many steps.

    More would push samples out of the buffer before a training has seen them, and fill the disk with neighbours that
    say the same. Audits are few beside what a model could not answer, and the only ones that tell how good it is: they
    go first, up to half of what is kept.

    Parameters
    ----------
    unselected, selected : int
        Elements per step whose truth is computed, over all ranks, of either kind.
    capacity : int
        Samples the buffer holds.
    steps : int
        Steps in which the buffer may be renewed once.

    Returns
    -------
    KeepShares
        1 where everything fits.

    Collective: no.
    """
    room = capacity / steps
    first = _share(max(_UNSELECTED_SHARE * room, room - selected), unselected)
    return KeepShares(first, _share(room - first * unselected, selected))


def _share(room: float, elements: int) -> float:
    return min(1.0, room / elements) if elements > 0 else 1.0
