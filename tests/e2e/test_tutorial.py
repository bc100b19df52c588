"""The tutorial, typed as it stands, block by block, in an empty folder; only the grid and the run are smaller."""

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coupler.summary import read_summary

if TYPE_CHECKING:
    from tests.conftest import Processes

pytestmark = [pytest.mark.e2e, pytest.mark.ray]

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"(?P<told><!-- not typed by the test[^>]*-->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S)
# What a reader waits a minute for, a test need not.
SMALLER = {
    "steps = 500": "steps = 60",
    "shape = [64, 64]": "shape = [24, 24]",
    "output_every = 50": "output_every = 20",
    "first = 40_000": "first = 2_000",
    "renewal = 80": "renewal = 20",
    "budget = 8.0": "budget = 1.0",
}
SECONDS = 120.0


@pytest.fixture(scope="module")
def blocks() -> list[tuple[str, str]]:
    found = [(block["kind"], block["text"]) for block in BLOCK.finditer(TUTORIAL.read_text()) if not block["told"]]
    for usual, smaller in SMALLER.items():
        assert sum(text.count(usual) for _, text in found) == 1, usual
        found = [(kind, text.replace(usual, smaller)) for kind, text in found]
    return found


@pytest.mark.timeout(600)
def test_every_block_of_the_tutorial_does_what_it_says(
    blocks: list[tuple[str, str]], processes: "Processes", nothing_left_behind: None
) -> None:
    for kind, text in blocks:
        _type(kind, text, processes)

    runs = processes.folder / "runs"
    assert read_summary(runs / "physics" / "summary.json").mode == "physics"
    assert read_summary(runs / "first" / "summary.json").certificate.delta == 0.05
    assert read_summary(runs / "strict" / "summary.json").certificate.target == 0.005
    assert (runs / "first" / "fields.png").is_file()


def test_a_block_that_is_not_typed_says_why() -> None:
    untold = [block["told"] for block in BLOCK.finditer(TUTORIAL.read_text()) if block["told"]]

    assert untold and all(len(told) > len("<!-- not typed by the test: -->\n") for told in untold)


def _type(kind: str, text: str, processes: "Processes") -> None:
    """Do what a reader does with a block: save a file, type commands, run a few lines of Python, or only read."""
    named = re.match(r"# (\w+\.(?:py|toml))\n", text)
    if named is not None:
        (processes.folder / named[1]).write_text(text)
    elif kind in ("bash", "python"):
        command = ["bash", "-ec", text] if kind == "bash" else [sys.executable, "-c", text]
        path = os.pathsep.join((str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])))
        finished = processes.run(command, timeout=SECONDS, environment={"PYTHONPATH": path})
        assert finished.returncode == 0, f"{text}\n{finished.stdout}"
    else:
        assert kind == "text", f"nobody knows what to do with a block of {kind}:\n{text}"
