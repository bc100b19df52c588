"""Threads and cores: who runs where, and whether there are more of them than cores."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from coupler.doctor.census import Census, Rank
from coupler.doctor.finding import Finding
from coupler.serving.placement import plan


def examine_cores(census: Census) -> list[Finding]:
    """Look at cores and threads on every node of the job.

    Collective: no.
    """
    nodes: dict[str, dict[int, Rank]] = defaultdict(dict)
    for number, rank in enumerate(census.ranks):
        nodes[rank.host][number] = rank
    findings = []
    for host, ranks in nodes.items():
        suffix = f" of {host}" if len(nodes) > 1 else ""
        findings += [_cores(f"cores{suffix}", ranks), _binding(f"who runs where{suffix}", ranks)]
        findings.append(_threads(f"threads{suffix}", ranks))
    return findings


def usable_cores(rank: Rank) -> int:
    """Count the cores a node gives to the job: those it may use, or the time its control group allows if less."""
    return len(rank.reachable) if rank.quota is None else max(1, min(len(rank.reachable), int(rank.quota)))


def ranges(numbers: Iterable[int]) -> str:
    """Write numbers shortly: ``0-3, 8``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _cores(subject: str, ranks: dict[int, Rank]) -> Finding:
    first = next(iter(ranks.values()))
    usable, processes = usable_cores(first), len(ranks) + 1
    quota = "no quota" if first.quota is None else f"quota of {first.quota:g}"
    found = f"{len(first.reachable)} ({ranges(first.reachable)}), {quota}; ranks here: {len(ranks)}, and a server"
    if processes <= usable:
        return Finding(subject, "ok", found)
    return Finding(
        subject,
        "note",
        f"{found}: they take turns",
        f"For speed use mpirun -n {max(usable - 1, 1)} on this node, or get {processes} cores. Without a GPU the "
        "model inside the ranks is cheaper here than asking a server: --set exchange.transport=inprocess.",
    )


def _binding(subject: str, ranks: dict[int, Rank]) -> Finding:
    first = next(iter(ranks.values()))
    places = plan([rank.bound for rank in ranks.values()], first.reachable)
    used = frozenset[int]().union(*places.ranks)
    found = f"{_map(ranks)}; server and trainer on {ranges(places.services)}"
    if len(used) >= min(len(ranks), len(first.reachable)):
        return Finding(subject, "ok", found)
    return Finding(
        subject,
        "wrong",
        f"{found}: {len(ranks)} ranks share {len(used)} of {len(first.reachable)} cores",
        "Bind them apart, mpirun --bind-to core, or not at all, mpirun --bind-to none.",
    )


def _map(ranks: dict[int, Rank]) -> str:
    together: dict[frozenset[int], list[int]] = defaultdict(list)
    for number, rank in ranks.items():
        together[rank.bound].append(number)
    return "; ".join(f"rank {ranges(numbers)} on {ranges(cores)}" for cores, numbers in together.items())


def _threads(subject: str, ranks: dict[int, Rank]) -> Finding:
    first = next(iter(ranks.values()))
    asked: Sequence[int] = [rank.threads for rank in ranks.values() if rank.threads is not None]
    if len(asked) < len(ranks):
        return Finding(
            subject,
            "note",
            "OMP_NUM_THREADS is not set: coupler run sets it to 1, but in scripts of your own every rank may start a "
            "thread per core",
            "export OMP_NUM_THREADS=1",
        )
    found = f"OMP_NUM_THREADS = {max(asked)}, {sum(asked)} in all ranks here"
    if max(asked) > 1 and sum(asked) + 1 > usable_cores(first):
        advice = "export OMP_NUM_THREADS=1"
        return Finding(subject, "wrong", f"{found}, for {usable_cores(first)} cores with the server", advice)
    return Finding(subject, "ok", found)
