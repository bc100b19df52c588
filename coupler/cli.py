"""The command line: ``coupler run``, ``resume``, ``watch``, ``report``, ``replay``, ``check`` and the others."""

import signal
import sys
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from coupler.atomic import storage_failure
from coupler.config import explain as explain_keys
from coupler.config import read_case
from coupler.errors import FAILED, USER_MISTAKE, ConfigError, CouplerError
from coupler.launcher import is_first_rank, is_rank, keep_to_itself, share_the_node
from coupler.openmpi import guard_early
from coupler.stopping import RESUME_ME
from coupler.summary import STOPPED

if TYPE_CHECKING:
    from coupler.bench import Row
    from coupler.case import ControllerSection
    from coupler.learning.registry import ModelCard
    from coupler.simulation import Simulation
    from coupler.summary import Summary

_SIGNALLED = 128
# What happened last is enough on a screen; summary.json has all of it.
_MOST_EVENTS = 4
# A table of figures is never folded to the width of a terminal or a pipe.
_WIDEST_TABLE = 1000
# Longest that ranks wait for the first one to say what is wrong; if it says nothing, they do [s].
_FIRST_RANK_SECONDS = 20.0

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Couple MPI simulations with surrogates that learn.",
)
_console = Console(highlight=False, soft_wrap=True)


@app.command()
def run(
    case: Annotated[Path, typer.Argument(help="the case file (TOML)")],
    settings: Annotated[list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="override a key")] = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="the run folder; never overwritten")] = None,
) -> None:
    """Run a case, alone or on every rank of mpirun."""
    share_the_node()
    effective = read_case(case, settings)
    from coupler.simulation import Simulation

    _run(Simulation(effective, out=out))


@app.command()
def resume(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="the folder of an unfinished run")],
    settings: Annotated[
        list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="override a key that may change")
    ] = [],  # noqa: B006
) -> None:
    """Go on with a run from its last checkpoint, alone or under mpirun on any number of ranks."""
    share_the_node()
    if not (folder / "case.toml").is_file():
        raise ConfigError(f"{folder} is no run folder: it has no case.toml. Give the folder of a run.")
    effective = read_case(folder / "case.toml", settings)
    from coupler.simulation import Simulation

    if effective.kernel.name is None:
        raise ConfigError(
            f"The run in {folder} had a loop of its own, which only its script has: type "
            f'Coupling(..., resume="{folder}") there, and run it.'
        )
    _run(Simulation(effective, resume=folder))


@app.command()
def replay(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="the folder of a finished run")],
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR2", help="the new run's folder")] = None,
    ranks: Annotated[
        int | None,
        typer.Option("--ranks", metavar="N", min=1, help="start so many with mpirun"),
    ] = None,
) -> None:
    """Do a run again from its ledger, and say whether it is bitwise the same."""
    if ranks is not None:
        from coupler.mpirun import run_on_ranks

        again = ["replay", str(folder), *(["--out", str(out)] if out else [])]
        raise typer.Exit(run_on_ranks(ranks, again, option="--ranks"))
    share_the_node()
    from coupler.replay import replay as replay_run

    comparison = replay_run(folder, out)
    if comparison is not None:
        _console.print(escape(str(comparison)))
        if not comparison.same:
            raise typer.Exit(FAILED)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="run folders, also of a run that goes on")],
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE.html", help="the page; DIR/report.html")] = None,
) -> None:
    """Write one HTML page about one or several runs, and its pictures as PNGs beside it."""
    from coupler.report.page import write_page

    _console.print(escape(str(write_page(folders, out))))


@app.command()
def watch(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="the folder of a run that goes on")],
    once: Annotated[bool, typer.Option("--once", help="say where it is, and end")] = False,
    still: Annotated[float, typer.Option("--still", metavar="SECONDS", min=0, help="silence that is said")] = 60.0,
) -> None:
    """Watch a run from its folder, on any machine that sees it, until it ends."""
    from coupler.watch import watch as watch_run

    watch_run(folder, _console, once=once, still=still)


@app.command()
def trace(folder: Annotated[Path, typer.Argument(metavar="DIR", help="a run with trace.on = true")]) -> None:
    """Put the timeline of a run together that goes on or was killed; a finished run has done so itself."""
    from coupler.timeline import write_trace

    _console.print(escape(str(write_trace(folder))))


@app.command()
def check(
    plugin: Annotated[str, typer.Argument(help="package.module:Class or path/to/file.py:Class")],
    settings: Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="a parameter of the plug-in")] = [],  # noqa: B006
) -> None:
    """Test a kernel, operator or surrogate against its contract, line by line."""
    from coupler.check import check_plugin

    results = check_plugin(plugin, settings)
    for result in results if is_first_rank() else ():
        mark = "[green]✓[/green]" if result.passed else "[red]✗[/red]"
        _console.print(f"{mark} {escape(result.line)}" + (f" — {escape(result.detail)}" if result.detail else ""))
    if not all(result.passed for result in results):
        raise typer.Exit(FAILED)


@app.command()
def explain(key: Annotated[str, typer.Argument(help="a section or section.key; everything if left out")] = "") -> None:
    """Say what the keys of a case mean: default, unit, meaning."""
    table = Table(box=None, pad_edge=False)
    for heading in ("key", "default", "unit", "meaning"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "key")
    for row in explain_keys(key):
        table.add_row(escape(row.key), escape(row.default), escape(row.unit), escape(row.meaning))
    Console(highlight=False).print(table)


@app.command()
def doctor(json: Annotated[bool, typer.Option("--json", help="print JSON")] = False) -> None:
    """Find what is wrong with this machine for a coupled run, and say what to type."""
    from coupler.doctor import examine, print_findings

    findings = examine()
    print_findings(findings, as_json=json)
    if any(finding.wrong for finding in findings):
        raise typer.Exit(FAILED)


@app.command()
def bench(
    names: Annotated[list[str] | None, typer.Argument(help="which benchmarks; all if left out")] = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="write the rows as JSON")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="DIR", help="draw DIR/NAME.png for each")] = None,
) -> None:
    """Run the benchmarks, side by side with their rivals."""
    from coupler.bench import measure, write
    from coupler.report.bench import draw_bench
    from coupler.report.bench_table import table_of

    for folder in filter(None, (plot, json and json.parent)):
        folder.mkdir(parents=True, exist_ok=True)  # now, not after minutes of measuring

    def report(name: str, rows: "list[Row]") -> None:
        Console(highlight=False, width=_WIDEST_TABLE).print(table_of(name, rows))
        if plot is not None:
            draw_bench(name, rows, plot / f"{name}.png")

    rows = measure(names or [], report)
    if json is not None:
        write(rows, json)


@app.command()
def train(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="folders of runs with tapes, or that learned")],
    settings: Annotated[list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="override a key")] = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="a new folder; runs/train-NNN")] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=1, help="processor time per operator; the model's own epochs")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", min=100, help="most elements to learn from")] = 250_000,
) -> None:
    """Train models on recorded truth, alone or on all ranks of mpirun together, for runs to begin with.

    The case is that of the first run.
    """
    share_the_node()
    if not (runs[0] / "case.toml").is_file():
        raise ConfigError(f"{runs[0]} is no run folder: it has no case.toml. Give the folder of a run with a tape.")
    case = read_case(runs[0] / "case.toml", settings)
    from coupler.learning.trainer import Fit, fit_alone
    from coupler.playback.training import TruthTraining
    from coupler.runfolder import claim

    trainers = _trainers()
    training = TruthTraining(runs, case, seconds=seconds, samples=samples, trainers=trainers)

    def work(fit: Fit) -> "tuple[Path, list[ModelCard]]":
        folder = claim(out, "train", case)
        cards = training.run(folder, fit)
        folder.release(finished=True)
        return folder.path, cards

    if trainers > 1:
        from coupler.coupling.team import in_team

        path, cards = in_team(work, training.candidates)
    else:
        path, cards = work(fit_alone)
    if not is_first_rank():
        return
    for card in cards:
        judged = f"{card.holdout_loss:.3g} on those held out, target {case.controller.target:g}"
        _console.print(
            f"{card.operator}: {card.samples:,} elements, {card.seconds:.0f} s; mean capped error {judged}; "
            f"{card.holdout_accepted:.1%} of them would be accepted"
        )
    _console.print(f"begin with it: --set learning.start={path}")


@app.command()
def experiment(
    file: Annotated[Path, typer.Argument(help="the experiment's file (TOML)")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="its folder; experiments/NAME if left out")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="K/N", help="every N-th configuration from the K-th on, as a job array does"),
    ] = None,
) -> None:
    """Compare settings of a case, on recorded truth or in whole runs; what is done already is not done again."""
    share_the_node()
    from coupler.experiment import Experiment, Lines, read_plan, slice_of

    carried_out = Experiment(read_plan(file), file, out or Path("experiments") / file.stem)
    lines = Lines(_console)
    if only is not None and "/" not in only:
        carried_out.run_one(only)
    elif only is not None:
        carried_out.run_slice(slice_of(only), lines.outcome)
    else:
        lines.results(carried_out.run(lines.outcome), carried_out.folder)


def main() -> None:
    """Run the command line: one sentence and exit code 2 for a user's mistake, an abort of all ranks for ours."""
    sys.path.insert(0, str(Path.cwd()))  # as `python -m coupler` does: my_kernel:MyKernel may be here
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, _interrupt)
    keep_to_itself()
    guard_early()
    try:
        app()
    except CouplerError as error:
        _part(f"coupler: {error}")
    except SystemExit as ended:
        if isinstance(ended.code, int) and ended.code > _SIGNALLED:
            _abort("", ended.code)  # this rank was interrupted; the others may not have been
        raise
    except Exception as error:
        if said := storage_failure(error):
            _abort(f"coupler: {said}", USER_MISTAKE)
        _abort(traceback.format_exc(), FAILED)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """End by unwinding, so that everything that was started is stopped on the way out."""
    print(f"coupler: interrupted by {signal.Signals(number).name}.", file=sys.stderr, flush=True)
    sys.exit(_SIGNALLED + number)


def _trainers() -> int:
    """Give how many ranks train; MPI is loaded where there is more than this process only."""
    if not is_rank():
        return 1
    from coupler.coupling.team import team_size

    return team_size()


def _run(simulation: "Simulation") -> None:
    """Run a simulation, draw it and say what came of it; one that was asked to stop says how to go on."""
    case, first = simulation.case, simulation.grid.rank == 0
    if first:
        _console.print(escape(repr(simulation)))
    summary = simulation.run()
    folder = simulation.coupling.folder.path
    simulation.close()
    if summary.status == STOPPED:
        if first:
            _console.print(f"stopped after step {summary.steps}, as asked; to go on: coupler resume {folder}")
        raise typer.Exit(RESUME_ME)
    if first:
        if case.output.pictures:
            from coupler.report import draw

            draw(folder)
        _print_summary(summary, folder, case.controller)


def _part(message: str) -> NoReturn:
    """End over a user's mistake, which all ranks meet alike: said once."""
    if "mpi4py.MPI" in sys.modules:
        from coupler.coupling import part

        part(message, USER_MISTAKE)
    if not is_first_rank():
        # The launcher ends all ranks when one has ended, perhaps before the first has said why: that one goes first.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(_FIRST_RANK_SECONDS)
    print(message, file=sys.stderr)
    sys.exit(USER_MISTAKE)


def _abort(message: str, code: int) -> NoReturn:
    """End this process, and with it all ranks once there are any."""
    if "mpi4py.MPI" in sys.modules:
        from coupler.coupling import abort

        abort(message, code)
    print(message, file=sys.stderr)
    sys.exit(code)


def _print_summary(summary: "Summary", folder: Path, section: "ControllerSection") -> None:
    from coupler.records import OF_MODELS
    from coupler.twin import sentence

    table = Table(box=None, show_header=False, pad_edge=False)
    decisions, elements = summary.decisions, max(summary.elements, 1)
    table.add_row("steps, ranks", f"{summary.steps}, {summary.ranks}")
    for name in ("accepted", "fallback", "audited", "vetoed", "timeout", "disabled"):
        count = getattr(decisions, name)
        table.add_row(name, f"{count / elements:7.2%}  {count:,}")
    table.add_row("certificate", summary.certificate.sentence)
    if section.twin_every:
        table.add_row("trajectory", sentence(summary.twins, section))
    table.add_row("models", ", ".join(f"v{model.version} at step {model.step}" for model in summary.models) or "none")
    switches = [event for event in summary.events if event.kind not in OF_MODELS]
    for event in switches[-_MOST_EVENTS:]:
        table.add_row(event.kind, f"at step {event.step}: {event.sentence}")
    table.add_row("seconds", f"{summary.seconds.total:.1f} in all, {summary.seconds.setup:.1f} of them set-up")
    table.add_row(
        "speed against physics", f"{summary.speedup_estimate:.2f}× (estimated from this run's own truth calls)"
    )
    table.add_row("run folder", str(folder))
    _console.print(table)
