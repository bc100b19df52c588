"""The plan of a session: what is to be run, checked before anything starts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coupler.case import Case, RunSection
from coupler.controller import Controller, coin_seed
from coupler.coupling.inheritance import Inheritance
from coupler.coupling.resumption import Resumption
from coupler.coupling.script import Script
from coupler.operator import Operator


@dataclass(frozen=True)
class SessionPlan:
    """What a session is of; checked before it starts.

    Parameters
    ----------
    case : Case
        The effective case.
    operators : mapping of name to Operator
        With the case's tolerances.
    controller : Controller
        The rules, the same for every operator.
    out : Path or None
        The run folder, if the user chose one.
    name : str
        What the default run folder is named after.
    elements : mapping of name to int
        Most elements this rank asks about at once.
    hopeless : str
        Why no model could save anything, so that nothing is started for one; empty if one could.
    script : Script or None
        The run that this one does again, if it does.
    resumption : Resumption or None
        Where this run goes on from, if it does.
    inheritance : Inheritance or None
        The models it begins with, if it does with any.
    """

    case: Case
    operators: Mapping[str, Operator]
    controller: Controller
    out: Path | None
    name: str
    elements: Mapping[str, int]
    script: Script | None = None
    hopeless: str = ""
    resumption: Resumption | None = None
    inheritance: Inheritance | None = None

    @property
    def learns(self) -> bool:
        """Whether there is to be a model."""
        return self.controller.asks and not self.hopeless

    @property
    def coin_seed(self) -> int:
        """Seed of the audit coins: another one for every set of models to begin with, and that of the run it is of."""
        if self.script is not None:
            return self.script.summary.coin_seed
        if self.resumption is not None:
            return int(self.resumption.checkpoint.facts["coin_seed"])
        return coin_seed(self.case.run.seed, () if self.inheritance is None else self.inheritance.digests.values())

    @property
    def checkpointed(self) -> RunSection:
        """When checkpoints are wanted: never in a run that does another again."""
        return self.case.run if self.script is None else self.case.run.model_copy(update={"checkpoints": 0})
