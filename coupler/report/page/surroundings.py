"""What the run ran on and what it was asked to do, word by word."""

import shlex
from collections.abc import Sequence

from coupler.report.page.blocks import Block, Grid, Listing, Words
from coupler.report.page.dossier import Dossier


def environment_blocks(run: Dossier) -> Sequence[Block]:
    """Show versions, host and command."""
    known = dict(run.environment)
    if not known:
        return [Words(f"environment.json: {run.gaps.get('environment.json', 'empty')}", quiet=True)]
    packages = known.pop("packages", None) or {}
    versions = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
    rows = [(name, _text(value)) for name, value in known.items() if value is not None]
    return [Grid((), [*rows, ("packages", versions)])]


def case_blocks(run: Dossier) -> Sequence[Block]:
    """Show the effective case."""
    if not run.case_text:
        return [Words(f"case.toml: {run.gaps.get('case.toml', 'empty')}", quiet=True)]
    return [Listing("case.toml, every default included", run.case_text)]


def gap_blocks(run: Dossier) -> Sequence[Block]:
    """Say which files could not be read, and why."""
    return [Words(f"{name}: {why}", quiet=True) for name, why in run.gaps.items() if why != "not there"]


def _text(value: object) -> str:
    return shlex.join(map(str, value)) if isinstance(value, list) else str(value)
