"""Server processes of rivals: started, listening, ended in any case."""

import select
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

from benchmarks.harness.ranks import rank_environment
from benchmarks.harness.rivals.system import Unavailable

_START_SECONDS = 60.0
_GRACE_SECONDS = 5.0


class ServerProcess:
    """A process that runs a function of ours until it is ended.

    Parameters
    ----------
    module, function : str
        What it runs; the function prints ``listening`` on a line once it does.
    arguments : sequence of str
        Its arguments.

    Raises
    ------
    Unavailable
        If it does not come to listen; it is ended.
    """

    def __init__(self, module: str, function: str, arguments: Sequence[str]) -> None:
        # The pipe to its input: it ends when this process does, however that happens.
        code = f"import sys; from {module} import {function}; {function}(*sys.argv[1:])"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=rank_environment(),
        )
        assert self._process.stdout is not None
        ready = select.select([self._process.stdout], [], [], _START_SECONDS)[0]
        if not ready or self._process.stdout.readline() != "listening\n":
            self.close()
            raise Unavailable("its server did not start")

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_SECONDS)
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def listening() -> None:
    """Say that the server listens, and from now on end with the process that started it."""
    import os
    import threading

    def end_with_parent() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=end_with_parent, daemon=True).start()
    print("listening", flush=True)
