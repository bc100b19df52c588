"""The page itself: sections in order, one column per run, put through the template and written whole."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

import coupler
from coupler.atomic import replacing
from coupler.config import case_from
from coupler.errors import CouplerError
from coupler.records import Decision
from coupler.report.canvas import WIDTH
from coupler.report.page.beside import beside_blocks
from coupler.report.page.blocks import Block, Drawn, Section, Words
from coupler.report.page.costs import economy_blocks, seconds_blocks
from coupler.report.page.course import budget_blocks, rank_blocks
from coupler.report.page.dossier import Dossier, read_dossier
from coupler.report.page.film import film_of
from coupler.report.page.picture import draw_picture
from coupler.report.page.places import place_blocks
from coupler.report.page.surroundings import case_blocks, environment_blocks, gap_blocks
from coupler.report.page.versions import event_blocks, training_blocks, version_blocks
from coupler.report.twins import fill_twins, moved
from coupler.twin import sentence

_HERE = Path(__file__).parent


def write_page(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write the report of one or several runs as one HTML file that needs nothing else, and its pictures as PNGs.

    Parameters
    ----------
    folders : sequence of Path
        Run folders, at least one: going on, ended or cut short.
    out : Path, optional
        The HTML file; ``report.html`` in the run folder if left out, in the working directory for several runs.
        Pictures go into a folder beside it that is named like it, without the suffix.

    Returns
    -------
    Path
        The HTML file.

    Raises
    ------
    CouplerError
        If a folder holds no run, or the page cannot be written.

    Collective: no.
    """
    runs = [read_dossier(path, name) for path, name in zip(folders, _names(folders), strict=True)]
    page = out or (folders[0] if len(folders) == 1 else Path()) / "report.html"
    if page.suffix not in (".html", ".htm"):
        raise CouplerError(
            f"--out {page} does not say that it is a page, which pictures are named after: end it in .html."
        )
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        text = _render(runs, _sections(runs, page))
        with replacing(page) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CouplerError(
            f"The report {page} cannot be written ({error.strerror}): give another place with --out FILE.html."
        ) from error
    return page


def _names(folders: Sequence[Path]) -> list[str]:
    """Name runs by their folders, and by more of their paths where those are alike."""
    resolved = [path.resolve() for path in folders]
    names = [path.name or "run" for path in resolved]
    if len(set(names)) < len(names):
        names = [f"{path.parent.name}-{path.name}" for path in resolved]
    return [f"{name}-{place}" if names.count(name) > 1 else name for place, name in enumerate(names, start=1)]


def _sections(runs: Sequence[Dossier], page: Path) -> list[Section]:
    beside = [Section("beside", "Side by side", [beside_blocks(runs)], whole=True)] if len(runs) > 1 else []
    kinds: list[tuple[str, str, Callable[[Dossier], Sequence[Block]]]] = [
        ("fields", "Fields", _field_blocks),
        ("budget", "Budget and threshold", lambda run: budget_blocks(run, page)),
        ("places", "Where the truth ran", lambda run: place_blocks(run, page)),
        ("ranks", "Accepted by rank", lambda run: rank_blocks(run, page)),
        ("seconds", "Where the seconds went", lambda run: seconds_blocks(run, page)),
        ("economics", "Whether it paid", economy_blocks),
        ("models", "Models and their trials", version_blocks),
        ("training", "What training cost", training_blocks),
        ("twins", "Twin windows", lambda run: _twin_blocks(run, page)),
        ("events", "Events", event_blocks),
        ("environment", "Environment", lambda run: [*environment_blocks(run), *gap_blocks(run)]),
        ("case", "Case", case_blocks),
    ]
    return beside + [Section(anchor, title, [blocks(run) for run in runs]) for anchor, title, blocks in kinds]


def _field_blocks(run: Dossier) -> Sequence[Block]:
    if run.recording is None:
        return [Words(f"No fields: {run.gaps.get('fields.h5', 'none were written')}.", quiet=True)]
    try:
        return [film_of(run.recording)]
    except CouplerError as error:
        return [Words(str(error), quiet=True)]


def _twin_blocks(run: Dossier, page: Path) -> Sequence[Block]:
    if not run.key("controller", "twin_every", 0):
        return [Words("No step was run twice: controller.twin_every asks for it.", quiet=True)]
    if run.summary is None:
        return [Words("Twin windows are written down when the run ends.", quiet=True)]
    windows = run.summary.twins
    said: list[Block] = [Words(_trajectory(run))]
    if moved(windows):
        caption = "How far run and twin were apart within each window, and at the end of the windows."
        said.append(
            Drawn(
                draw_picture(
                    page,
                    f"{run.name}-twins",
                    caption,
                    lambda figure: fill_twins(figure, windows),
                    width=WIDTH,
                    height=2.7,
                )
            )
        )
    return said


def _trajectory(run: Dossier) -> str:
    """Say what the twin windows showed; nothing where there were none."""
    if run.summary is None or not run.key("controller", "twin_every", 0):
        return ""
    try:
        section = case_from(run.case, folder=run.path).controller
    except CouplerError:  # of another version of this package, whose keys are not ours
        return ""
    return sentence(run.summary.twins, section)


def _render(runs: Sequence[Dossier], sections: Sequence[Section]) -> str:
    loader = jinja2.FileSystemLoader(_HERE)
    surroundings = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, loader=loader)
    return surroundings.get_template("page.html").render(
        title=" · ".join(_title(run) for run in runs) if len(runs) < 4 else f"{len(runs)} runs",
        runs=[_head(run) for run in runs],
        sections=sections,
        css=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup((_HERE / "page.js").read_text(encoding="utf-8")),
        version=coupler.__version__,
    )


def _title(run: Dossier) -> str:
    return f"{run.name}: {run.kernel}, {run.mode}"


def _head(run: Dossier) -> dict[str, Any]:
    """Give what stands above everything else."""
    facts = [("state", run.state), ("grid", run.grid)]
    if run.summary is not None:
        seconds = run.summary.seconds
        facts += [("ranks", str(run.summary.ranks)), ("in the loop", f"{seconds.total - seconds.setup:.1f} s")]
    if run.asks:
        facts += [(name, f"{run.share(decision):.1%}") for name, decision in _SHARES]
        facts += [("target per decision", f"{run.target:g}"), ("versions", str(len(run.models)))]
    return {
        "name": run.name,
        "path": os.fspath(run.path),
        "sentence": run.sentence,
        "trajectory": _trajectory(run),
        "facts": [fact for fact in facts if fact[1]],
    }


_SHARES = (("accepted", Decision.ACCEPTED), ("audited", Decision.AUDITED))
