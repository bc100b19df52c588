"""Changes: one small file each in ``docs/changes/``, gathered here into a section of the changelog.

At a release: ``python -m docs._site.fragments VERSION`` writes the section on top of ``CHANGELOG.md`` and deletes the
fragments. Without a version it prints what has changed since the last release, which is also what the site shows.
"""

import datetime as dt
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from coupler.atomic import replacing

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "changes"
KINDS = ("added", "changed", "fixed", "removed")
_TITLE = "# Changelog\n"


def read_fragments(folder: Path = FOLDER) -> dict[str, list[str]]:
    """Read all fragments.

    Parameters
    ----------
    folder : Path
        Where they lie, as ``WHAT.KIND.md``.

    Returns
    -------
    dict of str to list of str
        By kind, in the order of :data:`KINDS`, their texts, sorted by file name and each on one line.

    Raises
    ------
    ValueError
        If a file has another name, or nothing in it.
    """
    found: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for path in fragment_files(folder):
        name = re.fullmatch(rf"[\w-]+\.({'|'.join(KINDS)})\.md", path.name)
        text = " ".join(path.read_text(encoding="utf-8").split())
        if name is None or not text:
            raise ValueError(f"{path}: a change is a file WHAT.KIND.md with a sentence in it, KIND one of {KINDS}")
        found[name[1]].append(text)
    return found


def fragment_files(folder: Path = FOLDER) -> list[Path]:
    """Find the files of all changes since the last release."""
    return sorted(path for path in folder.glob("*.md") if path.name != "README.md")


def section(heading: str, fragments: Mapping[str, Sequence[str]]) -> str:
    """Make a section of the changelog, kinds without a change left out."""
    parts = [f"## {heading}\n"]
    for kind, texts in fragments.items():
        if texts:
            parts.append("\n".join([f"### {kind.capitalize()}\n", *(f"- {text}" for text in texts)]) + "\n")
    return "\n".join(parts)


def release(version: str, day: dt.date, root: Path = ROOT) -> None:
    """Move all fragments into ``CHANGELOG.md``, as the section of a version.

    Parameters
    ----------
    version : str
        What is released.
    day : date
        When.
    root : Path
        The checkout.

    Raises
    ------
    ValueError
        If nothing has changed, or the version is in the changelog already.
    """
    folder, changelog = root / "docs" / "changes", root / "CHANGELOG.md"
    files, fragments = fragment_files(folder), read_fragments(folder)
    before = changelog.read_text(encoding="utf-8").removeprefix(_TITLE) if changelog.exists() else ""
    if not files or re.search(rf"^## {re.escape(version)} ", before, re.MULTILINE):
        raise ValueError(f"there is nothing to release as {version}: no fragments, or {changelog.name} has it already")
    with replacing(changelog) as temporary:
        temporary.write_text(f"{_TITLE}\n{section(f'{version} ({day})', fragments)}{before}", encoding="utf-8")
    for path in files:
        path.unlink()


if __name__ == "__main__":
    if len(sys.argv) == 1:
        print(section("Unreleased", read_fragments()))
    else:
        release(sys.argv[1], dt.datetime.now(dt.UTC).date())
