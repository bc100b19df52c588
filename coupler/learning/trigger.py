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
        Samples the buffer holds, the newest ones.
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


def keep_share(labelled: int, *, capacity: int, steps: int) -> float:
    """Share of the truth-labelled elements to keep, so that the buffer is renewed once in so many steps.

    More would push samples out of the buffer before a training has seen them, and fill the disk with neighbours that
    say the same.

    Parameters
    ----------
    labelled : int
        Elements per step whose truth is computed, over all ranks.
    capacity : int
        Samples the buffer holds.
    steps : int
        Steps in which the buffer may be renewed once.

    Returns
    -------
    float
        In (0, 1]; 1 where everything fits.

    Collective: no.
    """
    return min(1.0, capacity / (steps * labelled)) if labelled > 0 else 1.0
