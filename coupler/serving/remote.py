"""A server that answers through Ray: for ranks on nodes that have no server of their own.

A question travels in one of two ways. A large one lies in the object store of its node, from where the server's node
fetches it once, and is used there without a copy. To find an object takes Ray some milliseconds, and twice so for
question and answer; a small one therefore goes within the call itself, in pieces that Ray takes for small arguments.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coupler.records import Rows
from coupler.serving.actor import Actor
from coupler.serving.modelplan import ModelPlan, Wanted

Floats = NDArray[np.float64]

# Inputs and answers of a question within a call, at most [bytes]; Ray allows 10 MiB of small arguments.
WITHIN_CALL_BYTES = 3 * 2**20
# Ray puts arguments and results of more than 100 kB into the object store; a header is counted with them.
_PIECE_BYTES = 96_000


class Heading(NamedTuple):
    """What is asked, without the elements.

    Attributes
    ----------
    operator, version : int
        Whose model is asked, and which version of it.
    dt : sequence of float
        Time step of each part.
    counts : sequence of int
        Elements of each part.
    """

    operator: int
    version: int
    dt: Sequence[float]
    counts: Sequence[int]


class RemoteServer(Actor):
    """Answers one question per call; a Ray actor with one thread for that and one for loading.

    Parameters
    ----------
    plan : ModelPlan
        What answers.
    cores : tuple of int
        Where to run; empty leaves the process where it is.
    wanted : sequence of Wanted
        What it loads before anybody hears of it; what cannot be loaded is left.
    """

    def __init__(self, plan: ModelPlan, cores: tuple[int, ...], wanted: Sequence[Wanted] = ()) -> None:
        # Imported here: whoever starts servers needs no torch.
        from coupler.serving.answering import Models

        self._columns = plan.columns
        self._models = Models(plan, cores)
        self.prepare(wanted)

    def load(self, operator: int, version: int, needed: Sequence[int] = ()) -> None:
        """Load a version from the registry; relays may ask for it once this has returned."""
        self._models.load(operator, version, needed)

    def prepare(self, wanted: Sequence[Wanted]) -> None:
        """Load versions that are not there yet."""
        for one in wanted:
            self._models.fetch(one.operator, one.version)

    def answer(self, heading: Heading, parts: Sequence[Floats]) -> tuple[float, Floats]:
        """Answer a question from the object store.

        Parameters
        ----------
        heading : Heading
            What is asked.
        parts : sequence of ndarray (n, n_in)
            The elements of each part.

        Returns
        -------
        tuple of float and ndarray (n (n_out + 1),)
            Seconds the model took, and the means of all elements, then their scores.
        """
        n_out = self._columns[heading.operator][1]
        many = sum(heading.counts)
        values = np.empty(many * (n_out + 1))
        mean, score = unpacked(values, many)
        asked = [
            Rows(_unlocked(inputs), dt, mean[rows], score[rows])
            for inputs, dt, rows in zip(parts, heading.dt, consecutive(heading.counts), strict=True)
        ]
        with self._busy():
            self._models.fetch(heading.operator, heading.version)
            return self._models.answer(heading.operator, heading.version, asked), values

    def answer_within(self, heading: Heading, *pieces: Floats) -> list[float | Floats]:
        """Answer a question that travels within the call; so does the answer, as :func:`reply_pieces` many results."""
        inputs = np.concatenate(pieces).reshape(-1, self._columns[heading.operator][0])
        seconds, values = self.answer(heading, [inputs[rows] for rows in consecutive(heading.counts)])
        return [seconds, *cut_up(values)]


def cut_up(values: Floats) -> list[Floats]:
    """Cut a flat array into views that Ray takes for small."""
    step = _PIECE_BYTES // values.itemsize
    return [values[start : start + step] for start in range(0, max(len(values), 1), step)]


def reply_pieces(elements: int, n_out: int) -> int:
    """Say how many results an answer within the call has."""
    step = _PIECE_BYTES // 8
    return 1 + max(1, -(-elements * (n_out + 1) // step))


def unpacked(values: Floats, elements: int) -> tuple[Floats, Floats]:
    """Give views of mean (n, n_out) and score (n,) in an answer as it travels."""
    within = len(values) - elements
    return values[:within].reshape(elements, -1) if elements else values.reshape(0, 1), values[within:]


def consecutive(counts: Sequence[int]) -> Iterator[slice]:
    """Give the rows of each part of a batch that lies together."""
    start = 0
    for count in counts:
        yield slice(start, start + count)
        start += count


class _Unlocked:
    """An array's memory without the mark that it is read-only.

    Arrays from the object store carry the mark. Nobody writes into a question, but compiled forwards and torch take
    arrays without it only.
    """

    def __init__(self, array: Floats) -> None:
        self._array = array  # keeps the memory
        interface = array.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}


def _unlocked(array: Floats) -> Floats:
    return np.asarray(_Unlocked(array))
