"""Agreement: a version answers in the same form wherever it is loaded, so a run asks one model only."""

import logging
from collections.abc import Collection

from coupler.errors import PluginError
from coupler.learning.registry import ModelCard, Registry
from coupler.serving.predictor import Predictor

_log = logging.getLogger("coupler")


def load_as_agreed(predictor: Predictor, registry: Registry, card: ModelCard, needed: Collection[int] = ()) -> None:
    """Load a version in the form that whoever loaded it first has chosen; choose it, if that is us.

    A node that cannot run it in that form takes one of its own and says so: better than no answer, but such a run is
    not bitwise what its replay is.

    Parameters
    ----------
    predictor : Predictor
        Takes it in.
    registry : Registry
        Has it, and keeps the form.
    card : ModelCard
        Which version.
    needed : collection of int
        Other versions that must stay loaded.

    Raises
    ------
    CouplerError
        If it cannot be loaded at all.

    Collective: no.
    """
    surrogate, agreed = registry.load(card), registry.form(card)
    judged = registry.introduction(card).held_out.inputs
    if agreed is None:
        predictor.load(card.version, surrogate, card, judged=judged, needed=needed)
        mine = predictor.choices[card.version].form
        agreed = registry.agree_on_form(card, mine)
        if agreed == mine:
            return
    try:
        predictor.load(card.version, surrogate, card, judged=judged, form=agreed, needed=needed)
    except PluginError as error:
        _log.warning("%s, version %d: not in the form of the others: %s", card.operator, card.version, error)
        predictor.load(card.version, surrogate, card, judged=judged, needed=needed)
