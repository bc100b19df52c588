"""Files that are complete or absent, whatever is killed in between."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; it becomes ``path`` once the block ends without an error.

    One writer per path. A writer that was killed leaves a hidden file, which the next one overwrites.

    Parameters
    ----------
    path : Path
        The file to be; an older one of that name stays as it is until the new one is on the disk.

    Collective: no.
    """
    temporary = path.with_name(f".{path.name}.part")
    yield temporary
    _sync(temporary)
    temporary.replace(path)
    _sync(path.parent)  # the name itself must outlive a crash, too


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
