"""The ledger: what was decided in every call of every rank, and what changed how, in one file over many segments."""

from coupler.ledger.reader import Ledger, read_ledger
from coupler.ledger.tables import AUDIT, EVENT, RECORD, STEP, TABLES, UNANSWERED, UNANSWERED_IDS
from coupler.ledger.writer import SEGMENT_BYTES, LedgerFile

__all__ = [
    "AUDIT",
    "EVENT",
    "RECORD",
    "SEGMENT_BYTES",
    "STEP",
    "TABLES",
    "UNANSWERED",
    "UNANSWERED_IDS",
    "Ledger",
    "LedgerFile",
    "read_ledger",
]
