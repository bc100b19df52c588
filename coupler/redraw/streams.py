"""Streams of decisions whose outcome is known: errors of all elements, and what a gate has settled of them.

An :class:`ErrorStream` is what a recorded truth gives: any gate can be put in front of it. A :class:`LossStream` is one
gate's decisions, fixed before any coin is tossed, with the rates of the coins.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from coupler.atomic import replacing
from coupler.controller import quantise
from coupler.errors import ConfigError, FieldMismatch

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LossStream:
    """Decisions that are settled before their coins, step by step, in groups of one audit rate.

    Only accepted elements with a loss are listed: the audit of any other adds nothing to the evidence, so its coin
    need not be tossed. A step has one group for each rate in use; the last group of a step closes it.

    Parameters
    ----------
    name : str
        What the stream is.
    loss : ndarray (m,) of int64
        Quantised losses above 0 [2**-32], by step and group.
    exceeded : ndarray (m,) of bool
        Where the error is above 1.
    score : ndarray (m,)
        Scores of these elements.
    place : ndarray (m,) of int64
        Position of the element within its step: its global id.
    first : ndarray (groups + 1,) of int64
        Where the losses of each group begin, and where the last ends.
    rate : ndarray (groups,)
        Audit rate.
    step, decisions, accepted : ndarray (groups,) of int64
        Step of the group, ascending; elements decided on and accepted.
    """

    name: str
    loss: Whole
    exceeded: NDArray[np.bool_]
    score: Floats
    place: Whole
    first: Whole
    rate: Floats
    step: Whole
    decisions: Whole
    accepted: Whole

    def __post_init__(self) -> None:
        m, groups = self.loss.size, self.step.size
        assert self.first.size == groups + 1 and self.first[0] == 0 and self.first[-1] == m, (self.first, m)
        assert self.exceeded.shape == self.score.shape == self.place.shape == (m,), m
        assert self.rate.size == self.decisions.size == self.accepted.size == groups, groups
        assert (np.diff(self.step) >= 0).all() and (self.accepted <= self.decisions).all()
        # What sums of 63 bits hold, so that compiled loops are exact.
        assert self.decisions.sum() < 2**30, self.decisions.sum()

    @property
    def closes(self) -> NDArray[np.bool_]:
        """Which groups are the last of their step (groups,)."""
        return np.append(self.step[1:] != self.step[:-1], True)[: self.step.size]

    @property
    def decided(self) -> Whole:
        """Decisions up to the end of each step (steps,)."""
        return np.cumsum(self.decisions)[self.closes]

    def true_sums(self) -> Whole:
        """Add up what is true: loss and exceedance up to the end of each step (2, steps) [2**-32]."""
        both = np.stack([self.loss, self.exceeded.astype(np.int64) << 32])
        running = np.concatenate([np.zeros((2, 1), np.int64), np.cumsum(both, axis=1)], axis=1)
        return running[:, self.first[1:][self.closes]]

    @property
    def true_loss(self) -> float:
        """Mean loss per decision at the end."""
        return float(self.loss.sum() / 2**32 / max(self.decisions.sum(), 1))

    @property
    def audits_expected(self) -> float:
        """Accepted elements whose truth is computed only because of a coin, on average."""
        return float(self.rate @ self.accepted)


@dataclass(frozen=True, eq=False)
class ErrorStream:
    """Scores and errors of all elements of a run, whatever becomes of them.

    Parameters
    ----------
    name : str
        What the stream is.
    score : ndarray (n,)
        By step.
    error : ndarray (n,)
        In tolerances; what is not a number is as wrong as can be.
    first : ndarray (steps + 1,) of int64
        Where the elements of each step begin, and where the last ends.
    inputs : ndarray (n, n_in), optional
        Operator inputs, for gates that look at them; none if left out.
    """

    name: str
    score: Floats
    error: Floats
    first: Whole
    inputs: Floats = field(default_factory=lambda: np.empty((0, 0)))

    def __post_init__(self) -> None:
        assert self.inputs.ndim == 2 and len(self.inputs) in (0, self.score.size), self.inputs.shape

    @property
    def steps(self) -> int:
        """Number of steps."""
        return self.first.size - 1

    def elements(self, step: int) -> tuple[Floats, Floats]:
        """Give score and error of one step's elements."""
        rows = slice(self.first[step], self.first[step + 1])
        return self.score[rows], self.error[rows]

    def settled(
        self, threshold: float | Floats, *, cap: float, audit_rate: float | Floats, name: str | None = None
    ) -> LossStream:
        """Put a gate in front that does not look at coins: scores strictly below the threshold are accepted.

        Parameters
        ----------
        threshold : float or ndarray (n,)
            One for all, or one for each element.
        cap : float
            Error that counts as a loss of 1 [tolerances].
        audit_rate : float or ndarray (n,)
            One for all, or one for each element, from what is known before the coins; above 0.
        name : str, optional
            Another name.

        Returns
        -------
        LossStream

        Collective: no.
        """
        rates, which = np.unique(np.broadcast_to(audit_rate, self.score.shape), return_inverse=True)
        assert rates.size == 0 or (rates[0] > 0 and rates[-1] <= 1), rates
        kinds, step = rates.size, np.repeat(np.arange(self.steps), np.diff(self.first))
        group, groups = step * kinds + which, self.steps * kinds
        accepted = np.maximum(np.nan_to_num(self.score, nan=np.inf, posinf=np.inf, neginf=np.inf), 0.0) < threshold
        loss = quantise(self.error / cap)
        listed = np.flatnonzero(accepted & (loss > 0))
        listed = listed[np.argsort(group[listed], kind="stable")]
        return LossStream(
            name=self.name if name is None else name,
            loss=loss[listed],
            exceeded=~(self.error[listed] <= 1.0),
            score=self.score[listed],
            place=listed - self.first[step[listed]],
            first=np.concatenate([[0], np.cumsum(np.bincount(group[listed], minlength=groups))]),
            rate=np.tile(rates, self.steps),
            step=np.repeat(np.arange(self.steps), kinds),
            decisions=np.bincount(group, minlength=groups),
            accepted=np.bincount(group[accepted], minlength=groups),
        )


def stream_from_arrays(
    name: str,
    score: Sequence[Floats] | Floats,
    error: Sequence[Floats] | Floats,
    inputs: Sequence[Floats] | Floats | None = None,
) -> ErrorStream:
    """Make a stream from what was recorded, an array of each step's elements after the other.

    Parameters
    ----------
    name : str
        What the stream is.
    score, error : sequence of ndarray (n of that step,), or ndarray (steps, n)
        Score, and error in tolerances, of every element.
    inputs : sequence of ndarray (n of that step, n_in), optional
        Operator inputs.

    Returns
    -------
    ErrorStream

    Raises
    ------
    FieldMismatch
        If scores, errors and inputs are not of the same elements.

    Collective: no.
    """
    scores, errors = ([np.asarray(values, dtype=np.float64) for values in given] for given in (score, error))
    shapes = [[values.shape for values in given] for given in (scores, errors)]
    if shapes[0] != shapes[1] or any(len(shape) != 1 for shape in shapes[0]):
        raise FieldMismatch(
            f'The stream "{name}" has scores and errors that do not belong together ({len(scores)} and {len(errors)} '
            "steps, or steps of other lengths). Give one number of each for every element, a row for each step."
        )
    first = np.concatenate([[0], np.cumsum([values.size for values in scores], dtype=np.int64)]).astype(np.int64)
    flat = [np.concatenate(given) if given else np.empty(0) for given in (scores, errors)]
    return ErrorStream(name, flat[0], flat[1], first, _inputs(name, flat[0].size, inputs))


def _inputs(name: str, count: int, given: Sequence[Floats] | Floats | None) -> Floats:
    parts = [] if given is None else [np.asarray(part, dtype=np.float64) for part in given]
    if not parts:
        return np.empty((0, 0))
    if len({part.shape[1:] for part in parts}) != 1 or parts[0].ndim != 2 or sum(map(len, parts)) != count:
        raise FieldMismatch(
            f'The stream "{name}" has inputs of {sum(map(len, parts))} elements and scores of {count}, or inputs whose '
            "columns differ from step to step. Give a row of inputs for every score, or no inputs at all."
        )
    return np.concatenate(parts)


def write_stream(stream: ErrorStream, path: Path) -> None:
    """Write a stream as HDF5: its four arrays by name; an older file stays until the new one is whole.

    Collective: no.
    """
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["name"] = stream.name
        for key in ("score", "error", "first", "inputs"):
            file.create_dataset(key, data=getattr(stream, key))


def read_stream(path: Path) -> ErrorStream:
    """Read what :func:`write_stream` wrote.

    Raises
    ------
    ConfigError
        If the file is none, or is not whole.

    Collective: no.
    """
    try:
        with h5py.File(path, "r") as file:
            name = str(file.attrs["name"])
            score, error, first = (file[key][:] for key in ("score", "error", "first"))
            inputs = file["inputs"][:] if "inputs" in file else np.empty((0, 0))
    except (OSError, KeyError) as mistake:
        raise ConfigError(
            f'"{path}" is not a stream of errors ({mistake}): it must be an HDF5 file with score, error and first, as '
            "`write_stream` makes it. Record it again."
        ) from mistake
    if score.shape != error.shape or first.size == 0 or first[0] != 0 or first[-1] != score.size:
        raise ConfigError(
            f'"{path}" is a stream whose parts do not fit together: {score.size} scores, {error.size} errors. '
            "Record it again."
        )
    if inputs.ndim != 2 or len(inputs) not in (0, score.size):
        raise ConfigError(
            f'"{path}" is a stream whose parts do not fit together: {score.size} scores, inputs of shape '
            f"{inputs.shape}. Record it again."
        )
    return ErrorStream(name, score, error, first, inputs)
