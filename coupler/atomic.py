"""Files that are complete or absent, whatever is killed in between."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# What a disk says that takes nothing more: the run cannot go on, and is not to blame.
_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


def storage_failure(error: BaseException | None) -> str:
    """Say in one sentence that a disk took nothing more, if that is what happened; nothing otherwise.

    Parameters
    ----------
    error : BaseException or None
        What was raised; what it was raised from is looked at as well.

    Collective: no.
    """
    while error is not None and not (isinstance(error, OSError) and error.errno in _STORAGE):
        error = error.__cause__
    if error is None:
        return ""
    where = f"{error.filename} cannot be written" if error.filename else "A file of the run folder cannot be written"
    return (
        f"{where} ({error.strerror}), so the run ends here; what was written before is whole. Make room, or lift the "
        "limit, and go on from the last checkpoint: coupler resume DIR."
    )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; it becomes ``path`` once the block ends without an error.

    One writer per path. A block that raises leaves nothing; a writer that was killed leaves a hidden file, which the
    next one overwrites.

    Parameters
    ----------
    path : Path
        The file to be; an older one of that name stays as it is until the new one is on the disk.

    Collective: no.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a write does not say where
        with suppress(OSError):  # a folder that became read-only keeps it; the reason is on its way already
            temporary.unlink(missing_ok=True)  # half a file on a full disk is in the way of whatever comes next
        raise
    _sync(path.parent)  # the name itself must outlive a crash, too


@contextmanager
def creating(path: Path) -> Iterator[Path]:
    """Give a temporary path; it becomes ``path`` unless that exists by then, and then it is dropped.

    Several writers may try at the same time: exactly one of them succeeds.

    Parameters
    ----------
    path : Path
        The file to be.

    Collective: no.
    """
    temporary = unshared(path)
    try:
        yield temporary
        _sync(temporary)
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        with suppress(OSError):  # as above
            temporary.unlink(missing_ok=True)
    _sync(path.parent)


def unshared(path: Path) -> Path:
    """Give a hidden path beside a file that nobody else gets: processes of two nodes may have the same number."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
