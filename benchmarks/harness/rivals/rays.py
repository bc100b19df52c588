"""Rivals over Ray: an actor's method, a compiled graph of it, and a Ray Serve deployment; and their cluster."""

import logging
import os
import secrets
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.ranks import rank_environment
from benchmarks.harness.rivals.system import LocalSystem, Unavailable
from benchmarks.harness.rivals.workload import DEADLINE, Forward, Workload
from coupler.serving.reaper import Reaper

# Where drivers find each other's actors.
NAMESPACE = "rivals"
_START_SECONDS = 90.0
# Room for questions and answers of 64 MiB, and for those of the graph, which keeps its own.
_OBJECT_STORE_BYTES = min(4 * 2**30, int(0.3 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))
# Ray replaces a loopback address by the node's, in every process, unless it believes that it cannot form a cluster.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# What the product gives its own cluster, so that a rival's actor is as fast: Ray's workers have nice 15 by default, and
# glibc hands the memory of every forward back to the system.
_CLUSTER_ENVIRONMENT = {
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "MALLOC_TRIM_THRESHOLD_": "268435456",
    "MALLOC_MMAP_THRESHOLD_": "134217728",
}


class RivalCluster:
    """A Ray cluster on loopback for rivals and product alike, with an object store large enough for the largest batch.

    This process and its children reach it by ``address`` and by the token named in their environment.

    Raises
    ------
    Unavailable
        If it does not start; nothing is left behind.
    """

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="coupler-ray-", dir="/tmp"))
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), **_LOOPBACK}
        self._before = {name: os.environ.get(name) for name in self.environment}
        os.environ.update(self.environment)  # Ray looks when it is imported, and at every later call
        self._reaper = Reaper(folder)
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"from {__name__} import be_head; be_head(*__import__('sys').argv[1:])",
                str(folder),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**rank_environment(), **_CLUSTER_ENVIRONMENT},
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        if not self.address:
            self.close()
            raise Unavailable("no Ray cluster started here: try `coupler doctor`")

    def close(self) -> None:
        """End it and all that it started."""
        with suppress(OSError):
            self._process.communicate(timeout=_START_SECONDS)  # closes its input, at which it ends
        self._reaper.close()
        for name, value in self._before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def be_head(folder: str) -> None:
    """Hold a cluster until the input is closed; says its address."""
    import ray

    context: Any = ray.init(
        address="local",
        num_cpus=os.cpu_count(),
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        _node_ip_address="127.0.0.1",
        _temp_dir=folder,
    )
    print(context.address_info["gcs_address"], flush=True)
    sys.stdin.read()
    ray.shutdown()


class Forwarder:
    """The actor, and the deployment: answers with the same forward as every system."""

    def __init__(self, models: str, form: str) -> None:
        self._forward = Forward(models, form)

    def answer(self, model: str, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._forward.answer(model, inputs)

    def pid(self) -> int:
        return os.getpid()


class RayActor(LocalSystem):
    """A call of an actor's method; arguments and results go by Ray's object store when they are large.

    Parameters
    ----------
    models : Path
        Where the models were published.
    form : str
        ``same`` or ``eager``; see :class:`benchmarks.harness.rivals.workload.Forward`.
    """

    def __init__(self, models: Path, form: str) -> None:
        super().__init__()
        self.name = "ray-actor" if form == "same" else f"ray-actor-{form}"
        self.facts = {"copies": "in+out", "forward": form}
        self._form, self._actor = form, start_forwarder(models, form)

    def open(self, workload: Workload) -> None:
        """Look whether the form of the forward matters.

        Raises
        ------
        Unavailable
            If not: the same is measured already.
        """
        if workload.model == "identity" and self._form != "same":
            raise Unavailable("an identity has one form only")

    def answer(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Call it."""
        return ask_forwarder(self._actor, self.workload.model, inputs)

    def close(self) -> None:
        """End the actor."""
        import ray

        ray.kill(self._actor)


def start_forwarder(models: Path, form: str, name: str | None = None) -> Any:
    """Start an actor and give its handle; other drivers find it by its name."""
    import ray

    actor: Any = ray.remote(Forwarder)
    options = {"num_cpus": 0} | ({} if name is None else {"name": name, "namespace": NAMESPACE})
    handle = actor.options(**options).remote(str(models), form)
    ray.get(handle.pid.remote(), timeout=_START_SECONDS)
    return handle


def ask_forwarder(handle: Any, model: str, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Do one round trip to an actor."""
    import ray

    answer: NDArray[np.float64] = ray.get(handle.answer.remote(model, inputs), timeout=DEADLINE)
    return answer


class RayCompiledGraph(LocalSystem):
    """The actor's method in a graph that Ray compiles (experimental): no call any more, channels in shared memory.

    Parameters
    ----------
    models : Path
        Where the models were published.
    """

    def __init__(self, models: Path) -> None:
        super().__init__()
        self.name, self.facts = "ray-compiled-graph", {"copies": "in+out", "forward": "same"}
        self._actor = start_forwarder(models, "same")
        self._graph: Any = None

    def open(self, workload: Workload) -> None:
        """Compile a graph with channels that hold the batch."""
        import ray
        from ray.dag import InputNode

        self._tear_down()
        with InputNode() as inputs:
            node = self._actor.answer.bind(workload.model, inputs)
        self._graph = node.experimental_compile(_buffer_size_bytes=workload.bytes + 2**16, _submit_timeout=DEADLINE)
        self._get = ray.get

    def answer(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Execute the graph."""
        answer: NDArray[np.float64] = self._get(self._graph.execute(inputs), timeout=DEADLINE)
        return answer

    def close(self) -> None:
        """End graph and actor."""
        import ray

        self._tear_down()
        ray.kill(self._actor)

    def _tear_down(self) -> None:
        if self._graph is not None:
            self._graph.teardown()
            self._graph = None


class RayServe(LocalSystem):
    """A Ray Serve deployment, asked by its handle, without HTTP.

    Parameters
    ----------
    models : Path
        Where the models were published.

    Raises
    ------
    Unavailable
        If what Ray Serve needs is not installed.
    """

    def __init__(self, models: Path) -> None:
        super().__init__()
        self.name, self.facts = "ray-serve", {"copies": "in+out", "forward": "same"}
        try:
            from ray import serve
        except ModuleNotFoundError as error:
            raise Unavailable(f'Ray Serve needs "{error.name}": pip install -e .[bench]') from None
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        serve.start(proxy_location="Disabled", logging_config={"log_level": "ERROR"})
        deployment: Any = serve.deployment(ray_actor_options={"num_cpus": 0})(Forwarder)
        self._handle: Any = serve.run(deployment.bind(str(models), "same"), route_prefix=None, name="rival")

    def answer(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Ask by the handle."""
        answer: NDArray[np.float64] = self._handle.answer.remote(self.workload.model, inputs).result(timeout_s=DEADLINE)
        return answer

    def close(self) -> None:
        """End the deployment and Serve."""
        from ray import serve

        serve.delete("rival")
        serve.shutdown()
