"""Files that are complete or absent, whatever is killed in between."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


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
    except BaseException:
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    yield temporary
    _sync(temporary)
    with suppress(FileExistsError):
        os.link(temporary, path)
    temporary.unlink()
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
