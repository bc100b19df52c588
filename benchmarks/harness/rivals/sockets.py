"""Rivals over sockets: a plain Unix socket, and ZeroMQ's request and reply over one."""

import selectors
import socket
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.rivals.processes import ServerProcess, listening
from benchmarks.harness.rivals.system import LocalSystem, Unavailable
from benchmarks.harness.rivals.workload import DEADLINE, MODELS, Forward

# Model and elements; the rows follow.
_HEADER = struct.Struct("=IQ")
_BUFFER_BYTES = 2**20
# Below it, ZeroMQ is faster when it copies a message than when it counts who still needs it [bytes].
_COPIED_BYTES = 2**16
_THIS = __name__


class UnixSocketClient:
    """The rank's end of a Unix socket.

    Parameters
    ----------
    path : str
        Where the server listens.
    """

    def __init__(self, path: str) -> None:
        self._line = _tuned(socket.socket(socket.AF_UNIX))
        limit = struct.pack("ll", int(DEADLINE), 0)  # the kernel's: settimeout would cost a poll for every read
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            self._line.setsockopt(socket.SOL_SOCKET, option, limit)
        self._line.connect(path)
        self._answer = np.empty((0, 0))

    def answer(self, operator: int, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Send a batch and take its answer."""
        if self._answer.shape != inputs.shape:
            self._answer = np.empty(inputs.shape)
        _send(self._line, _HEADER.pack(operator, len(inputs)), inputs)
        _receive(self._line, self._answer.data.cast("B"))
        return self._answer

    def close(self) -> None:
        """Hang up."""
        self._line.close()


class UnixSocket(LocalSystem):
    """A server behind a Unix socket, as one would write it: one read, one forward, one write.

    Parameters
    ----------
    folder, models : Path
        A folder for the socket; where the models were published.
    """

    def __init__(self, folder: Path, models: Path) -> None:
        super().__init__()
        self.name, self.facts = "unix-socket", {"copies": "in+out", "forward": "same"}
        path = str(folder / "unix")
        self._server = ServerProcess(_THIS, "serve_unix", [path, str(models), "1"])
        self._client = UnixSocketClient(path)

    def answer(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Ask the server."""
        return self._client.answer(self.workload.operator, inputs)

    def close(self) -> None:
        """Hang up and end the server."""
        self._client.close()
        self._server.close()


def serve_unix(path: str, models: str, clients: str) -> None:
    """Answer so many ranks at a Unix socket, whoever is ready, one after the other."""
    server = _UnixServer(models)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(int(clients))
        listening()
        lines = [_tuned(listener.accept()[0]) for _ in range(int(clients))]
    if len(lines) == 1:  # nothing to choose from: a plain read waits
        while server.serve(lines[0]):
            pass
        return
    with selectors.DefaultSelector() as waiting:
        for line in lines:
            waiting.register(line, selectors.EVENT_READ)
        while waiting.get_map():
            for key, _ in waiting.select():
                if not server.serve(key.fileobj):  # type: ignore[arg-type]
                    waiting.unregister(key.fileobj)


class _UnixServer:
    def __init__(self, models: str) -> None:
        self._forward = Forward(models)
        self._names = list(MODELS)
        self._header = bytearray(_HEADER.size)
        self._inputs = np.empty((0, 0))

    def serve(self, line: socket.socket) -> bool:
        """Answer the next question; say whether there was one."""
        try:
            _receive(line, memoryview(self._header))
        except ConnectionError:
            return False
        operator, elements = _HEADER.unpack(self._header)
        shape = (elements, MODELS[self._names[operator]][1])
        if self._inputs.shape != shape:
            self._inputs = np.empty(shape)
        _receive(line, self._inputs.data.cast("B"))
        line.sendall(self._forward.answer(self._names[operator], self._inputs).data.cast("B"))
        return True


def _tuned(line: socket.socket) -> socket.socket:
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        line.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
    return line


def _send(line: socket.socket, header: bytes, rows: NDArray[np.float64]) -> None:
    payload = rows.data.cast("B")
    sent = line.sendmsg([header, payload]) - len(header)
    if sent < len(payload):
        line.sendall(payload[max(sent, 0) :])


def _receive(line: socket.socket, space: memoryview) -> None:
    while space:
        count = line.recv_into(space)
        if count == 0:
            raise ConnectionError("the other side has hung up")
        space = space[count:]


class ZeroMqClient:
    """The rank's end of a ZeroMQ request socket.

    Parameters
    ----------
    path : str
        Where the server listens.
    """

    def __init__(self, path: str) -> None:
        import zmq

        self._context = zmq.Context(io_threads=1)
        self._line: Any = self._context.socket(zmq.REQ)
        self._line.setsockopt(zmq.RCVTIMEO, int(DEADLINE * 1000))
        self._line.setsockopt(zmq.LINGER, 0)
        self._line.connect(f"ipc://{path}")

    def answer(self, operator: int, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Send a batch and take its answer."""
        _send_parts(self._line, _HEADER.pack(operator, len(inputs)), inputs)
        return _array(self._line.recv(copy=inputs.nbytes < _COPIED_BYTES), inputs.shape)

    def close(self) -> None:
        """Hang up."""
        self._line.close()
        self._context.term()


class ZeroMq(LocalSystem):
    """A server behind ZeroMQ's reply socket, by ``ipc``.

    Parameters
    ----------
    folder, models : Path
        A folder for the socket; where the models were published.

    Raises
    ------
    Unavailable
        If pyzmq is not installed.
    """

    def __init__(self, folder: Path, models: Path) -> None:
        super().__init__()
        require_zeromq()
        self.name, self.facts = "zeromq", {"copies": "in+out", "forward": "same"}
        path = str(folder / "zeromq")
        self._server = ServerProcess(_THIS, "serve_zeromq", [path, str(models)])
        self._client = ZeroMqClient(path)

    def answer(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Ask the server."""
        return self._client.answer(self.workload.operator, inputs)

    def close(self) -> None:
        """Hang up and end the server."""
        self._client.close()
        self._server.close()


def require_zeromq() -> None:
    """Look whether ZeroMQ is there.

    Raises
    ------
    Unavailable
        If it is not.
    """
    try:
        import zmq  # noqa: F401
    except ModuleNotFoundError:
        raise Unavailable("pyzmq is not installed: pip install -e .[bench]") from None


def serve_zeromq(path: str, models: str) -> None:
    """Answer ranks at a ZeroMQ reply socket, which takes them in turns by itself."""
    import zmq

    forward, names = Forward(models), list(MODELS)
    line: Any = zmq.Context(io_threads=1).socket(zmq.REP)
    line.bind(f"ipc://{path}")
    listening()
    while True:
        operator, elements = _HEADER.unpack(line.recv())
        columns = MODELS[names[operator]][1]
        inputs = _array(line.recv(copy=8 * elements * columns < _COPIED_BYTES), (elements, columns))
        answer = forward.answer(names[operator], inputs)
        line.send(answer, copy=answer.nbytes < _COPIED_BYTES)


def _send_parts(line: Any, header: bytes, rows: NDArray[np.float64]) -> None:
    import zmq

    line.send(header, zmq.SNDMORE)
    line.send(rows, copy=rows.nbytes < _COPIED_BYTES)


def _array(message: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    buffer = message if isinstance(message, bytes) else message.buffer
    array: NDArray[np.float64] = np.frombuffer(buffer, dtype=np.float64).reshape(shape)
    return array
