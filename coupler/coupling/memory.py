"""The memory of a session: what a checkpoint keeps of it besides arrays, the same on every rank."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coupler import records
from coupler.checkpoint import Plain, from_plain, records_of, to_plain
from coupler.controller import certificate, controller, economics, regions, trial
from coupler.controller.policies import Policy, policy
from coupler.coupling import account, call, journal, route
from coupler.coupling.account import AccountMemory
from coupler.coupling.call import StepSetting
from coupler.coupling.journal import JournalMemory
from coupler.coupling.route import RouteMemory
from coupler.errors import CouplerError
from coupler.records import Event


@dataclass(frozen=True)
class Standing:
    """Where a session stands at the end of a step.

    Parameters
    ----------
    step : int
        Steps that were made.
    setting : tuple of StepSetting
        What held in the last of them.
    events : tuple of Event
        What has happened.
    models : tuple of dict
        Versions that took over, as in ``summary.json``.
    """

    step: int
    setting: tuple[StepSetting, ...]
    events: tuple[Event, ...]
    models: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class SessionMemory:
    """What a session needs to go on.

    Parameters
    ----------
    moment : Standing
        Where it stood.
    account : AccountMemory
        What was counted.
    journal : JournalMemory
        Where the files stand.
    routes : tuple of RouteMemory
        Per operator.
    steering : SteeringMemory or None
        Learning and versions; None in a run without.
    """

    moment: Standing
    account: AccountMemory
    journal: JournalMemory
    routes: tuple[RouteMemory, ...]
    steering: Any

    def to_plain(self) -> Plain:
        """Give it as plain data.

        Raises
        ------
        CouplerError
            If a policy of the user's own keeps what cannot be kept.
        """
        return to_plain(self)

    @staticmethod
    def from_plain(data: Plain, rule: Policy) -> "SessionMemory":
        """Make it again.

        Parameters
        ----------
        data : Plain
            What :meth:`to_plain` gave.
        rule : Policy
            Whose state is in it: records of the modules of its class may occur.

        Raises
        ------
        CouplerError
            If the data were written by other code.
        """
        try:
            memory = from_plain(data, _known(rule))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise CouplerError(
                f"The checkpoint was written by another version of coupler or of the policy ({error}), so the run "
                "cannot go on from it: use that version, or run the case again."
            ) from error
        if not isinstance(memory, SessionMemory):
            raise CouplerError("The checkpoint holds no state of a run: restore it from a copy.")
        return memory


def _known(rule: Policy) -> Mapping[str, type]:
    modules = [records, certificate, controller, economics, regions, trial, policy, account, call, journal, route]
    # Learning is there only where something is learned; then its modules have been imported.
    names = (
        "coupler.learning.trigger",
        *(f"coupler.coupling.{name}" for name in ("learner", "steering", "succession")),
    )
    modules += [sys.modules[name] for name in names if name in sys.modules]
    modules += [sys.modules[kind.__module__] for kind in type(rule).__mro__ if kind.__module__ in sys.modules]
    return {**records_of(modules), "SessionMemory": SessionMemory, "Standing": Standing}
