"""Surrogates: torch modules that answer for an operator, and what they learn from."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from coupler.errors import PluginError
from coupler.operator import Signature
from coupler.team import Team


class Prediction(NamedTuple):
    """What a surrogate says of a batch.

    Attributes
    ----------
    mean : Tensor (n, n_out), float64
        The answer, in the operator's units.
    score : Tensor (n,), float64
        How doubtful it is, 1.0 about "at tolerance". The score only ranks: nothing is promised by it.
    """

    mean: torch.Tensor
    score: torch.Tensor


@dataclass(frozen=True)
class Samples:
    """Elements with their truth.

    Parameters
    ----------
    inputs : ndarray (n, n_in)
        Operator inputs.
    dt : ndarray (n,)
        Time step of each element.
    truth : ndarray (n, n_out)
        What the operator gave.
    """

    inputs: NDArray[np.float64]
    dt: NDArray[np.float64]
    truth: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: NDArray[np.intp]) -> "Samples":
        """Give the samples of these rows, in this order."""
        return Samples(self.inputs[rows], self.dt[rows], self.truth[rows])


class Forward(Protocol):
    """A compiled form of ``predict``, with the weights it was made with; :mod:`coupler.fused` has the pieces.

    Several threads call it at once. It releases the GIL, keeps nothing from call to call, and the answer to a row is
    bitwise the same whatever rows are beside it and wherever it stands among them.
    """

    def __call__(
        self, inputs: NDArray[np.float64], dt: float, mean: NDArray[np.float64], score: NDArray[np.float64]
    ) -> None:
        """Answer for a batch, in place.

        Parameters
        ----------
        inputs : ndarray (n, n_in)
            Operator inputs, any number of rows; never written to.
        dt : float
            Time step of all of them.
        mean : ndarray (n, n_out)
            Receives the answer, in the operator's units.
        score : ndarray (n,)
            Receives its doubt.

        Collective: no.
        """


class Surrogate(torch.nn.Module, ABC):
    """A model of an operator: ``predict`` answers, ``fit`` learns. Subclass it; scaling belongs to the module.

    Everything that ``predict`` depends on must be in the module's parameters and buffers: they are what is
    saved (safetensors) and sent to the server. The class travels by name and is built there again as
    ``Class(signature, **params)``, so the constructor must take exactly that.

    Parameters
    ----------
    signature : Signature
        Names, units, bounds and tolerances of the operator.
    """

    def __init__(self, signature: Signature) -> None:
        super().__init__()
        self.signature = signature

    @abstractmethod
    def fit(self, samples: Samples, *, seed: int, seconds: float | None = None) -> None:
        """Learn from samples, starting from the present weights.

        Parameters
        ----------
        samples : Samples
            What to learn from.
        seed : int
            Seed of everything random in the training: the same samples, start and seed give the same weights.
        seconds : float, optional
            Budget of processor time, so that a full node makes training last longer and not worse; None trains for a
            fixed number of epochs, which deterministic runs need.
        """

    @property
    def most_trainers(self) -> int:
        """Processes that can share a training of this surrogate; override it together with :meth:`fit_together`."""
        return 1

    def fit_together(self, samples: Samples, *, team: Team, seed: int, seconds: float | None = None) -> None:
        """Learn as :meth:`fit` does, as one of several processes that share the work.

        All of them call it with the same samples, weights and seed, and all must come to the same weights: by teaching
        some members of an ensemble each and gathering what was taught, or by going through a part of every batch each
        and averaging the gradients. What comes out may hang on how many they are; one alone learns what ``fit`` does.

        Parameters
        ----------
        samples, seed, seconds
            As for :meth:`fit`; the seconds are those of each process.
        team : Team
            The processes, at most :attr:`most_trainers`.

        Raises
        ------
        PluginError
            If this surrogate can be trained by one process only.

        Collective: yes, over the team.
        """
        raise PluginError(f"{type(self).__name__} is trained by one process: it has no fit_together.")

    @abstractmethod
    def predict(self, inputs: torch.Tensor, dt: torch.Tensor) -> Prediction:
        """Answer for a batch.

        Parameters
        ----------
        inputs : Tensor (n, n_in), float64
            Operator inputs.
        dt : Tensor (n,), float64
            Time step of each element.

        Returns
        -------
        Prediction
            mean (n, n_out) and score (n,), float64, on the device of the inputs; row i depends on row i only.
        """

    def fused(self) -> Forward | None:
        """Give a compiled form of ``predict`` on the CPU, for the present weights; override it where there is one.

        It is compared with ``predict`` when a version is loaded, and used where it agrees and is faster.

        Returns
        -------
        Forward or None
            None where ``predict`` is all there is.
        """
        return None
