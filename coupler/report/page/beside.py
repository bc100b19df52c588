"""Several runs beside each other: one table, and how far their fields are apart where they share a grid."""

from collections.abc import Callable, Mapping, Sequence

from coupler.errors import CouplerError
from coupler.records import Decision
from coupler.report.comparison import Comparison, compare
from coupler.report.page.blocks import Block, Grid, Words
from coupler.report.page.dossier import Dossier


def beside_blocks(runs: Sequence[Dossier]) -> Sequence[Block]:
    """Compare runs line by line; fields and speed with the first physics run among them, if there is one."""
    reference = next((run for run in runs if run.mode == "physics" and run.summary is not None), None)
    found = {run.name: _against(run, reference) for run in runs}
    rows = [_row(title, [fact(run) for run in runs]) for title, fact in _FACTS.items()]
    if reference is not None:
        rows.append(
            _row("speed against physics, measured", [_speed(found[run.name], run is reference) for run in runs])
        )
        rows.append(
            _row("difference from physics at the end", [_distance(found[run.name], run is reference) for run in runs])
        )
    why = [Words(f"{name}: {said}", quiet=True) for name, said in found.items() if isinstance(said, str) and said]
    none = [
        Words(
            "None of these runs is a finished one of physics alone, so fields and speed are not compared.", quiet=True
        )
    ]
    return [Grid(("", *(run.name for run in runs)), rows), *(why if reference is not None else none)]


def _against(run: Dossier, reference: Dossier | None) -> Comparison | str:
    if reference is None or run is reference:
        return ""
    if run.summary is None:
        return "has not ended, so it is not compared with physics"
    try:
        return compare(run.path, reference.path)
    except CouplerError as error:
        return str(error)


def _speed(found: Comparison | str, is_reference: bool) -> str:
    if is_reference:
        return "1 (the reference)"
    return (
        f"{found.loop_speedup:.2f}× in the loop, {found.total_speedup:.2f}× in all"
        if isinstance(found, Comparison)
        else "–"
    )


def _distance(found: Comparison | str, is_reference: bool) -> str:
    if is_reference:
        return "0 (the reference)"
    if not isinstance(found, Comparison):
        return "–"
    return f"{found.worst_difference:.2%} of the range of {found.worst_field} (rms, step {found.steps[-1]})"


def _row(title: str, cells: Sequence[str]) -> tuple[str, ...]:
    return (title, *cells)


def _bound(run: Dossier) -> str:
    if not run.asks or not run.steps:
        return "–"
    if run.summary is not None:
        return f"{run.summary.certificate.loss_bound_per_decision:.3g} (target {run.target:g})"
    return f"{run.metrics[-1].loss_bound:.3g} so far (target {run.target:g})"


def _seconds(run: Dossier) -> str:
    if run.summary is None:
        return f"{run.metrics[-1].seconds:.1f} s so far" if run.metrics else "–"
    seconds = run.summary.seconds
    return f"{seconds.total - seconds.setup:.1f} s in the loop, {seconds.total:.1f} s in all"


_FACTS: Mapping[str, Callable[[Dossier], str]] = {
    "state": lambda run: run.state,
    "kernel, mode": lambda run: f"{run.kernel}, {run.mode}",
    "grid": lambda run: run.grid or "–",
    "ranks": lambda run: "–" if run.summary is None else str(run.summary.ranks),
    "certified loss per decision": _bound,
    "accepted": lambda run: f"{run.share(Decision.ACCEPTED):.1%}" if run.asks else "–",
    "audited": lambda run: f"{run.share(Decision.AUDITED):.1%}" if run.asks else "–",
    "versions that answered": lambda run: str(len(run.models)) if run.asks else "–",
    "seconds": _seconds,
    "speed against physics, estimated": lambda run: (
        f"{run.summary.speedup_estimate:.2f}×" if run.summary is not None and run.asks else "–"
    ),
}
