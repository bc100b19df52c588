"""``coupler doctor``: what is wrong with this machine for a coupled run, and what to type.

Alone or under mpirun, where every rank says which cores it may use, every node is looked at by its first rank, and the
nodes try to reach each other. It starts no Ray cluster and changes nothing.
"""

from coupler.doctor.between import examine_between, first_ranks
from coupler.doctor.census import gather, share, take_census
from coupler.doctor.cores import examine_cores
from coupler.doctor.finding import Finding, merged, print_findings
from coupler.doctor.memory import examine_leftovers, examine_memory
from coupler.doctor.mpi import examine_mpi
from coupler.doctor.ports import examine_ports
from coupler.doctor.ray import examine_ray
from coupler.doctor.software import examine_gpu, examine_software
from coupler.doctor.storage import examine_storage

__all__ = ["Finding", "examine", "print_findings"]


def examine() -> list[Finding]:
    """Look at everything a coupled run needs.

    Returns
    -------
    list of Finding
        The same on all ranks. What differs between nodes is said of each of them.

    Collective: yes.
    """
    census = take_census()
    firsts = first_ranks(census)
    here = census.ranks[census.rank].host
    ranks_here = sum(rank.host == here for rank in census.ranks)
    everywhere = gather(census, _examine_node(ranks_here) if census.rank in firsts else [])
    between = examine_between(census)
    findings: list[Finding] = []
    if census.rank == 0:
        by_node = {census.ranks[number].host: everywhere[number] for number in firsts}
        findings = [*examine_mpi(census), *examine_cores(census), *merged(by_node), *between]
    return share(census, findings)


def _examine_node(ranks: int) -> list[Finding]:
    """Look at what every node has of its own."""
    return [
        *examine_software(),
        *examine_ray(),
        examine_ports(),
        *examine_memory(ranks),
        *examine_leftovers(),
        *examine_gpu(),
        *examine_storage(),
    ]
