"""The Ray cluster of a run: one that is given, or an embedded one that lives and dies with rank 0.

The supervisor of rank 0 is the only driver, however many nodes and ranks there are: actors on other nodes are pinned
there by number.
"""

import os
import secrets
import socket
from contextlib import ExitStack
from pathlib import Path

from coupler.errors import ConfigError
from coupler.serving.daemons import Daemons
from coupler.serving.environment import ray_environment
from coupler.serving.placement import RayNode, ray_nodes

# Smallest object store Ray takes; nothing on the hot path goes through it.
_CONNECT_SECONDS = 5.0
_OBJECT_STORE_BYTES = 80 * 2**20


class Cluster:
    """The run's connection to Ray, held by its supervisor.

    Parameters
    ----------
    address : str or None
        A running cluster; None takes ``RAY_ADDRESS``, and without that starts an embedded one on loopback with a
        token of its own.
    spans : int
        Nodes that must be in it; an embedded one has one.
    folder : Path, optional
        Where an embedded one works; whoever gives it removes it. Its path must be short: Unix sockets allow 107 bytes.

    Raises
    ------
    ConfigError
        If the given cluster does not answer, or none is given and one node is not enough.
    """

    def __init__(self, address: str | None, spans: int = 1, folder: Path | None = None) -> None:
        self._daemons: Daemons | None = None
        self._auth_before = {name: os.environ.get(name) for name in _AUTH}
        given = address or os.environ.get("RAY_ADDRESS")
        if not given and spans > 1:
            raise ConfigError(
                f"The ranks are on {spans} nodes, and the Ray cluster that a run starts for itself reaches one. Start "
                "one on all of them (`ray start --head` on the first, `ray start --address=FIRST:6379` on the others) "
                "and say where: --set ray.address=FIRST:6379, or RAY_ADDRESS. Or ask no servers, with --set "
                "exchange.transport=inprocess."
            )
        with ExitStack() as failed:
            failed.callback(self.close)
            if given:
                self._connect(given)
            else:
                assert folder is not None
                self._start_embedded(folder)
            failed.pop_all()

    @property
    def head(self) -> str:
        """``address:port`` of the cluster's control service."""
        import ray

        return str(ray.get_runtime_context().gcs_address)

    def nodes(self) -> list[RayNode]:
        """List the nodes of the cluster that live."""
        import ray

        return ray_nodes(ray.nodes())  # type: ignore[no-untyped-call]

    def own_node(self) -> RayNode:
        """Give the node this process is connected to."""
        import ray

        own = ray.get_runtime_context().get_node_id()
        return next(node for node in self.nodes() if node.id == own)

    def broken(self, silence: float) -> str:
        """Say why the cluster cannot go on, as far as that can be seen without asking it; empty if it can.

        Parameters
        ----------
        silence : float
            How long a process of an embedded one may stand still [s].
        """
        return "" if self._daemons is None else self._daemons.broken(silence)

    def close(self) -> None:
        """Disconnect; an embedded cluster ends."""
        import ray

        ray.shutdown()
        for name, value in self._auth_before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value

    def _connect(self, address: str) -> None:
        import ray

        _check_reachable(address)
        try:
            with ray_environment(_PATIENT):
                ray.init(
                    address=address,
                    log_to_driver=False,
                    configure_logging=False,
                    namespace=_namespace(),
                    # Its nodes were not started from here: what an actor must find in its environment travels with it.
                    runtime_env={"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"], **_ACTORS}},
                )
        except (ConnectionError, RuntimeError, ValueError) as error:  # what Ray raises for a cluster that is not one
            first = str(error).strip().splitlines()[0]
            raise ConfigError(
                f"The Ray cluster at {address} does not answer: {first} Start it, or leave out ray.address and "
                "RAY_ADDRESS and one is started for the run; a cluster with tokens needs RAY_AUTH_MODE=token and "
                "RAY_AUTH_TOKEN_PATH."
            ) from error

    def _start_embedded(self, folder: Path) -> None:
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        # The driver reads these at every later call, so they stay until close.
        os.environ.update(zip(_AUTH, ("token", str(token)), strict=True))
        with ray_environment(_EMBEDDED):
            import ray

            ray.init(
                address="local",
                num_cpus=len(os.sched_getaffinity(0)),
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                namespace=_namespace(),
                _node_ip_address="127.0.0.1",
                _temp_dir=str(folder / "ray"),  # Ray lets everybody write where it works: below a folder of ours alone
            )
        self._daemons = Daemons(folder)


# Without its control service Ray ends driver and actors after a minute: what answers then may go on for a while.
_PATIENT = {"RAY_gcs_rpc_server_reconnect_timeout_s": "1000000"}
_AUTH = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")
_ACTORS = {
    # glibc gives activations back to the system after every forward, and fetching the pages again costs as much as
    # the forward itself; above these sizes [bytes] it keeps them.
    "MALLOC_TRIM_THRESHOLD_": "268435456",
    "MALLOC_MMAP_THRESHOLD_": "134217728",
    # An actor without a share of the GPUs still sees them.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_EMBEDDED = {
    **_PATIENT,
    **_ACTORS,
    # Ray replaces a loopback address by the node's unless it believes that it cannot form a cluster.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Ray runs workers at nice 15; a server must not wait behind the ranks it answers.
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def _check_reachable(address: str) -> None:
    """Look whether anybody listens, because Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        return  # "auto" and the like: Ray knows where to look
    try:
        socket.create_connection((host.rpartition("/")[2], int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise ConfigError(
            f"Nobody listens at the Ray address {address} ({error.strerror or error}). Start the cluster, or leave out "
            "ray.address and RAY_ADDRESS, and one is started for the run."
        ) from error


def _namespace() -> str:
    return f"coupler-{secrets.token_hex(8)}"
