"""What every gate policy does: says below which score an answer is taken, and moves that with what is found."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coupler.controller.certificate import Certificate, Tally
from coupler.controller.findings import Findings
from coupler.controller.limits import Floats


@dataclass(frozen=True)
class Rules:
    """What a policy is to keep to.

    Parameters
    ----------
    target : float
        Wanted mean loss per decision.
    cap : float
        Error that counts as a loss of 1 [tolerances].
    certificate : Certificate
        What the run states, whatever the policy does.
    seed : int
        Seed of the run.
    """

    target: float
    cap: float
    certificate: Certificate
    seed: int = 0


@dataclass(frozen=True)
class GateState:
    """Where the gate stands; a policy adds what it remembers in a class of its own.

    Parameters
    ----------
    threshold : float
        Scores strictly below it are accepted.
    stopped : bool
        Whether nothing is accepted, whatever its score.
    """

    threshold: float
    stopped: bool = False


class HeldOut(NamedTuple):
    """Answers of a new version to samples it was not trained on.

    Attributes
    ----------
    inputs : ndarray (n, n_in)
        The elements.
    score, error : ndarray (n,)
        Score, and error [tolerances].
    """

    inputs: Floats
    score: Floats
    error: Floats


@dataclass(frozen=True, eq=False)
class Introduction:
    """What is known of a version before it answers.

    Parameters
    ----------
    threshold : float
        The largest one whose expected loss on held-out samples is at most the target, 0 if there is none
        (conformal risk control, arXiv:2208.02814).
    held_out : HeldOut
        What it was found from; empty where nothing is known.
    tally : Tally
        The evidence of the run so far, of other versions.
    """

    threshold: float
    held_out: HeldOut
    tally: Tally


class Question(NamedTuple):
    """Answered elements a policy may rank anew.

    Attributes
    ----------
    inputs : ndarray (n, n_in)
        Operator inputs.
    score : ndarray (n,)
        The surrogate's own.
    ids : ndarray (n,) of int64
        Global ids.
    step, call : int
        When: the step, and the number of the call within it.
    """

    inputs: Floats
    score: Floats
    ids: NDArray[np.int64]
    step: int
    call: int


class Policy(ABC):
    """A rule for the gate. Subclass it, and name it ``module:Class`` in ``controller.policy``.

    All its functions are pure: state and findings in, state out. Every rank holds the same state and advances it by
    the same sums, so no rank asks another. Whatever a policy does, the certificate states what came of it.

    Parameters
    ----------
    rules : Rules
        What it is to keep to. Further parameters come from ``controller.params``.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules

    def start(self) -> GateState:
        """Give the state before the first version: nothing is accepted."""
        return GateState(threshold=0.0)

    @abstractmethod
    def promoted(self, state: GateState, introduction: Introduction) -> GateState:
        """Let another version answer.

        Parameters
        ----------
        state : GateState
            Before.
        introduction : Introduction
            What is known of the version.

        Returns
        -------
        GateState

        Collective: no.
        """

    @abstractmethod
    def advance(self, state: GateState, findings: Findings, tally: Tally) -> GateState:
        """Take in what a step found, and say how the next ones are gated.

        Parameters
        ----------
        state : GateState
            Before.
        findings : Findings
            Of one step, all ranks; a step late.
        tally : Tally
            The evidence of the run so far, this step included.

        Returns
        -------
        GateState

        Collective: no, but every rank must pass the same findings in the same order.
        """

    def scores(self, state: GateState, question: Question) -> Floats:
        """Give the scores (n,) to judge by: the surrogate's own, unless the policy knows better.

        Only what is known before the coins may be looked at, and an element's score must not depend on what else is
        in the question. Collective: no.
        """
        return question.score
