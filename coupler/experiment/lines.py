"""What an experiment says on a screen: a line for each outcome, and the best at the end."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from coupler.errors import ConfigError
from coupler.experiment.experiment import Results
from coupler.experiment.outcome import Outcome


class Lines:
    """Prints an experiment.

    Parameters
    ----------
    console : Console
        Where.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def outcome(self, outcome: Outcome, ended: int, of: int) -> None:
        """Say what a configuration came to, how many have ended by now, and of how many."""
        settings = ", ".join(f"{key.rpartition('.')[2]} = {value}" for key, value in outcome.settings.items())
        said = f"{outcome.speedup:5.2f}×  loss {outcome.true_loss:.4f}  accepted {outcome.accepted_share:6.1%}"
        if outcome.status == "failed":
            said = f"[red]failed[/red]  {escape(outcome.sentence)}"
        self._console.print(f"{ended:4d} of {of}  {outcome.name}  {said}  [dim]{escape(settings)}[/dim]")

    def results(self, results: Results, folder: Path) -> None:
        """Say how many configurations are done, and which was the best."""
        best, count = results.best, len(results.outcomes)
        failed = sum(one.status == "failed" for one in results.outcomes)
        self._console.print(
            f"{count - failed} configurations done, {failed} failed, {results.missing} missing: {folder}/table.csv"
        )
        if best is None:
            self._console.print("None kept its certified loss at or below the target: no best case is written.")
            return
        self._console.print(
            f"best       {best.name}: {best.speedup:.2f}× physics alone, certified loss {best.loss_bound:.4f} of "
            f"{best.target:g}\ncase       {folder}/best.toml\npicture    {folder}/pareto.png"
        )


def slice_of(only: str) -> slice:
    """Read ``K/N``, counted from 1: the K-th of every N.

    Raises
    ------
    ConfigError
        If it is something else.

    Collective: no.
    """
    number, _, of = only.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise ConfigError(f"--only {only}: write K/N with K from 1 to N, for example --only 3/8.")
    return slice(int(number) - 1, None, int(of))
