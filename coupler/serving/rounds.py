"""The training rounds under way: given to the trainer, given again to the one in its place, and how they failed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from coupler.serving.post import Post


@dataclass
class _Round:
    number: int
    task: str
    reply: Any = None


class Rounds:
    """One round at most per operator.

    Parameters
    ----------
    post : Post
        The trainer's.
    servers : callable
        Gives the servers that are to load what is trained.
    """

    def __init__(self, post: Post, servers: Callable[[], Sequence[Any]]) -> None:
        self._post, self._servers = post, servers
        self._open: dict[int, _Round] = {}
        self._failures: dict[int, str] = {}

    def train(self, operator: int, number: int, task: str) -> None:
        """Have a round trained: now, or as soon as there is a trainer; its outcome appears in the models' folder."""
        self._open[operator] = _Round(number, task)
        if self._post.held:
            self._give(operator, self._post.actor)

    def begin(self, trainer: Any) -> None:
        """Give all open rounds to a trainer that has just started; what was trained of them before is lost."""
        for operator in self._open:
            self._give(operator, trainer)

    def look(self) -> None:
        """Close the rounds that have ended, and note those that failed."""
        import ray

        for operator, one in list(self._open.items()):
            if self._post.given_up:
                self._fail(operator, "it was lost too often")
            elif one.reply is not None and ray.wait([one.reply], timeout=0)[0]:
                try:
                    ray.get(one.reply)
                    del self._open[operator]
                except ray.exceptions.RayActorError:
                    one.reply = None  # another one begins it again
                except ray.exceptions.RayError as error:
                    self._fail(operator, str(error).strip().splitlines()[-1])

    def failures(self) -> dict[int, str]:
        """Give why rounds will never have an outcome, by operator; each is given once."""
        failures, self._failures = self._failures, {}
        return failures

    def _give(self, operator: int, trainer: Any) -> None:
        one = self._open[operator]
        one.reply = trainer.train.remote(operator, one.number, one.task, self._servers())

    def _fail(self, operator: int, why: str) -> None:
        del self._open[operator]
        self._failures[operator] = why
