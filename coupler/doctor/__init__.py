"""``coupler doctor``: what is wrong with this machine for a coupled run, and what to type.

Alone or under mpirun, where every rank says which cores it may use. It starts no Ray cluster and changes nothing.
"""

from coupler.doctor.census import share, take_census
from coupler.doctor.cores import examine_cores
from coupler.doctor.finding import Finding, print_findings
from coupler.doctor.memory import examine_leftovers, examine_memory
from coupler.doctor.mpi import examine_mpi
from coupler.doctor.ray import examine_ray
from coupler.doctor.software import examine_gpu, examine_software
from coupler.doctor.storage import examine_storage

__all__ = ["Finding", "examine", "print_findings"]


def examine() -> list[Finding]:
    """Look at everything a coupled run needs; most things on the node of rank 0 only.

    Returns
    -------
    list of Finding
        The same on all ranks.

    Collective: yes.
    """
    census = take_census()
    findings: list[Finding] = []
    if census.rank == 0:
        findings += examine_software()
        findings += examine_mpi(census)
        findings += examine_cores(census)
        findings += examine_ray()
        findings += examine_memory() + examine_leftovers()
        findings += examine_gpu()
        findings += examine_storage()
    return share(census, findings)
