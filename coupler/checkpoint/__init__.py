"""Checkpoints: what a run needs to go on, one file each, complete or absent, with checksums."""

from coupler.checkpoint.file import Checkpoint, Column, write_checkpoint
from coupler.checkpoint.plain import Plain, from_plain, records_of, to_plain
from coupler.checkpoint.shelf import Shelf

__all__ = [
    "Checkpoint",
    "Column",
    "Plain",
    "Shelf",
    "from_plain",
    "records_of",
    "to_plain",
    "write_checkpoint",
]
