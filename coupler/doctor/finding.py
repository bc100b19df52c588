"""Findings: what the doctor saw, whether it is all right, and what to type if it is not."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from rich.console import Console
from rich.markup import escape

from coupler.doctor.census import speaks_for_all

_MARKS = {"ok": "[green]✓[/green]", "note": "[yellow]•[/yellow]", "wrong": "[red]✗[/red]"}


@dataclass(frozen=True)
class Finding:
    """One thing the doctor looked at.

    Parameters
    ----------
    subject : str
        What it is.
    status : {"ok", "note", "wrong"}
        Whether a coupled run works with it: well, with a remark, or not.
    found : str
        What is there.
    advice : str
        What to type; empty only if the status is ``ok``.
    """

    subject: str
    status: Literal["ok", "note", "wrong"]
    found: str
    advice: str = ""

    def __post_init__(self) -> None:
        assert self.status == "ok" or self.advice, self

    @property
    def wrong(self) -> bool:
        """Whether a coupled run would suffer from it."""
        return self.status == "wrong"


def merged(by_node: Mapping[str, Sequence[Finding]]) -> list[Finding]:
    """Say once what is all right on every node, and of each node what is not, or is on some only.

    Parameters
    ----------
    by_node : mapping
        What was found on every node, the first node first.

    Collective: no.
    """
    said: list[Finding] = []
    for subject in dict.fromkeys(finding.subject for findings in by_node.values() for finding in findings):
        of_node = {node: one for node, findings in by_node.items() for one in findings if one.subject == subject}
        first = next(iter(of_node.values()))
        alike = all((one.status, one.advice) == (first.status, first.advice) for one in of_node.values())
        if alike and len(of_node) == len(by_node):
            said.append(first)
        else:
            said += [replace(one, subject=f"{subject} of {node}") for node, one in of_node.items()]
    return said


def print_findings(findings: Sequence[Finding], *, as_json: bool) -> None:
    """Print findings on rank 0: a table with ticks, or a JSON list and nothing else.

    Collective: no.
    """
    if not speaks_for_all():
        return
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
        return
    # Not folded: what is to be typed is copied.
    console, width = Console(highlight=False, soft_wrap=True), max((len(one.subject) for one in findings), default=0)
    for finding in findings:
        console.print(f"{_MARKS[finding.status]}  {escape(finding.subject.ljust(width))}  {escape(finding.found)}")
        if finding.advice:
            console.print(f"   {' ' * width}  [bold]→[/bold] {escape(finding.advice)}")
