"""Model versions: what they were trained on, how they did, the trials they went through and what training cost."""

from collections.abc import Sequence

from coupler.records import EventKind
from coupler.report.page.blocks import Block, Grid, Words
from coupler.report.page.dossier import Dossier
from coupler.report.standings import seconds_text

_OF_MODELS = (
    EventKind.TRAINING,
    EventKind.TRIAL,
    EventKind.PROMOTED,
    EventKind.REJECTED,
    EventKind.ROLLED_BACK,
)
# A page that lists more than so many events is a log.
_MOST_EVENTS = 300


def version_blocks(run: Dossier) -> Sequence[Block]:
    """Show all versions, and the paired tests on audits that decided between them."""
    if not run.asks:
        return [Words("Physics only: no model was trained.", quiet=True)]
    if not run.cards:
        return [Words("No model was registered.", quiet=True), *_rounds(run)]
    several = len({card.get("operator") for card in run.cards}) > 1
    head = (
        "version",
        "trained from step",
        "samples",
        "fit",
        "held-out loss",
        "loss on the first samples",
        "first threshold",
    )
    rows = [
        (
            f"{card.get('operator')} v{card.get('version')}" if several else f"v{card.get('version')}",
            str(card.get("step", "")),
            _count(card.get("samples")),
            _seconds(card.get("seconds")),
            _number(card.get("holdout_loss")),
            _number(card.get("anchor_loss")),
            _number(card.get("threshold")),
        )
        for card in run.cards
    ]
    events = [event for event in run.events if event.kind in _OF_MODELS]
    trials = [(str(event.step), event.kind, f"v{event.version}", event.sentence) for event in events]
    tested: list[Block] = [
        Words("Trials, on audits that both versions answered; odds of 20 to 1 decide:"),
        Grid(("from step", "outcome", "version", "figures"), trials[-_MOST_EVENTS:]),
    ]
    return [Grid(head, rows), *(tested if trials else []), *_rounds(run)]


def training_blocks(run: Dossier) -> Sequence[Block]:
    """Say what the training cost."""
    if not run.asks:
        return [Words("Physics only.", quiet=True)]
    fits = sum(float(card.get("seconds") or 0.0) for card in run.cards)
    started = run.summary.retrainings if run.summary is not None else max(len(run.rounds), len(run.cards))
    said = f"{started} training {'round' if started == 1 else 'rounds'}, {len(run.cards)} of which brought a version; "
    said += f"their fits took {seconds_text(fits)} in a process of its own."
    if run.summary is not None:
        said += f" The ranks themselves spent {seconds_text(run.summary.seconds.learn)} on learning, the slowest one."
        said += f" {run.summary.rollbacks} versions were taken back." if run.summary.rollbacks else ""
    return [Words(said)]


def event_blocks(run: Dossier) -> Sequence[Block]:
    """List what changed how the steps were decided, in order."""
    if not run.events:
        ended = run.summary is not None
        return [
            Words(f"Nothing {'happened to' if ended else 'is written down yet of'} models or switches.", quiet=True)
        ]
    shown = run.events[-_MOST_EVENTS:]
    left_out = len(run.events) - len(shown)
    rows = [(str(event.step), event.kind, event.operator, event.sentence) for event in shown]
    note = [Words(f"The first {left_out} events are left out; summary.json has them.", quiet=True)] if left_out else []
    return [*note, Grid(("from step", "what", "operator", "in words"), rows)]


def _rounds(run: Dossier) -> Sequence[Block]:
    fruitless = [outcome for outcome in run.rounds if outcome.get("candidate") is None]
    if not fruitless:
        return []
    return [
        Words(f"{len(fruitless)} training rounds brought no version:"),
        Grid(("why",), [(str(outcome.get("sentence", "")),) for outcome in fruitless[-_MOST_EVENTS:]]),
    ]


def _seconds(value: object) -> str:
    return seconds_text(value) if isinstance(value, int | float) else "–"


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else "–"


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "–"
