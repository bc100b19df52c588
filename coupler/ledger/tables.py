"""The tables of a ledger: their columns, and the words for the codes in them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np

from coupler.controller.findings import SCORE_BINS, SCORE_ROWS, score_edges
from coupler.records import Reason

# Longest sentence of an event [bytes]; longer ones are cut.
SENTENCE_BYTES = 512

RECORD = np.dtype(
    [
        ("step", np.int64),
        ("call", np.int32),
        ("operator", np.int32),
        ("rank", np.int32),
        ("version", np.int32),
        ("reasons", np.int64, (len(Reason),)),
        ("audits", np.int64),
        ("acceptable", np.int64),
        ("loss", np.int64),
        ("exceedances", np.int64),
        ("withheld", np.int64),
        ("withheld_loss", np.int64),
        ("refused", np.int64),
        ("threshold", np.float64),
        ("stopped", np.bool_),
        ("audit_rate", np.float64),
        ("truth_seconds", np.float64),
        ("wait_seconds", np.float64),
        ("model_seconds", np.float64),
        ("hidden_seconds", np.float64),
    ]
)
"""One call of one rank.

``reasons`` counts elements by :class:`coupler.records.Reason`; ``acceptable`` counts what the gate accepts, audited or
not; ``loss`` is the audited capped loss of those in units of 2**-32; ``withheld`` and ``withheld_loss`` are the same of
elements that only the hard stop kept from being accepted; ``refused`` counts those that only their score kept;
``audit_rate`` is 0 where nothing was asked. ``hidden_seconds`` is the time between questions and answers that did not
have to be waited for.
"""

STEP = np.dtype(
    [
        ("step", np.int64),
        ("operator", np.int32),
        ("version", np.int32),
        ("challenger", np.int32),
        ("off", np.bool_),
        ("stopped", np.bool_),
        ("alarms", np.int32),
        ("threshold", np.float64),
        ("audit_rate", np.float64),
        ("bound", np.float64),
        ("unit", np.float64),
        ("scores", np.int64, (SCORE_ROWS, SCORE_BINS)),
    ]
)
"""One operator in one step, over all ranks: what held, and how scores and errors went together.

``alarms`` counts regions of the input space under alarm; ``bound`` is the certified mean loss per decision of this
operator after the step. ``scores`` has audited elements that the gate accepts and their loss [2**-32], then known truth
of refused ones and theirs, by score; the bins begin at ``unit`` times the table's attribute ``score_edges``.
"""

EVENT = np.dtype(
    [
        ("step", np.int64),
        ("operator", np.int32),
        ("version", np.int32),
        ("kind", h5py.string_dtype("utf-8", 16)),
        ("sentence", h5py.string_dtype("utf-8", SENTENCE_BYTES)),
    ]
)
"""Something that changed how the steps from ``step`` on were decided, as :class:`coupler.records.Event`."""

AUDIT = np.dtype(
    [
        ("step", np.int64),
        ("call", np.int32),
        ("operator", np.int32),
        ("id", np.int64),
        ("score", np.float64),
        ("error", np.float64),
        ("verdict", np.uint8),
    ]
)
"""One audited answer, where ``[output] ledger = "audits"`` asks for it: error in tolerances, what the gate said."""

UNANSWERED = np.dtype(
    [
        ("step", np.int64),
        ("call", np.int32),
        ("operator", np.int32),
        ("rank", np.int32),
        ("reason", np.uint8),
        ("group", np.int32),
    ]
)
"""A call of a rank of which a group of elements went without an answer."""

UNANSWERED_IDS = np.dtype([("rank", np.int32), ("group", np.int32), ("first", np.int64), ("stop", np.int64)])
"""A range of ids in a group of a rank, from ``first`` up to and without ``stop``."""

TABLES: Mapping[str, np.dtype[np.void]] = MappingProxyType(
    {
        "records": RECORD,
        "steps": STEP,
        "events": EVENT,
        "audits": AUDIT,
        "unanswered": UNANSWERED,
        "unanswered_ids": UNANSWERED_IDS,
    }
)
"""All tables by name; every ledger has all of them, also those with nothing in them."""

SORTED_BY: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "records": ("step", "call", "operator", "rank"),
        "steps": ("step", "operator"),
        "events": ("step", "operator"),
        "audits": ("step", "call", "operator", "id"),
        "unanswered": ("step", "call", "operator", "rank"),
        "unanswered_ids": ("rank", "group", "first"),
    }
)
"""The order in which readers give them."""


def attributes(operators: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Give what is written beside each table, so that its numbers can be read without this package."""
    words = {
        "operators": list(operators),
        "reasons": [reason.name.lower() for reason in Reason],
        "reason_sentences": [reason.sentence for reason in Reason],
    }
    return {
        "records": {**words, "loss_unit": 2.0**-32},
        "steps": {"operators": list(operators), "loss_unit": 2.0**-32, "score_edges": score_edges(1.0)},
        "events": {"operators": list(operators)},
        "audits": words,
        "unanswered": words,
        "unanswered_ids": {},
    }
