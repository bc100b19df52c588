"""Pages that live at the top of the checkout, shown within the site; and links that leave ``docs/``.

A forge shows README, VISION and so on where they are. The site has a page for each in ``docs/project/``, which is a
link on the forge and the whole text on the site. Links are rewritten between the two; one to a source file stays as
words, because the site does not hold the sources.
"""

import os.path
import re
from pathlib import Path
from typing import Any

from docs._site.fragments import read_fragments, section

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SHOWN = {
    "README.md": "project/overview.md",
    "VISION.md": "project/vision.md",
    "CONTRIBUTING.md": "project/contributing.md",
}
_CHANGES = "project/changes"
# Code comes first, so that nothing within it is taken for a link.
_CODE_OR_LINK = re.compile(
    r"(?P<code>^(?P<fence>```+|~~~+).*?^(?P=fence)|`[^`\n]+`)"
    r"|(?P<picture>!?)\[(?P<words>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)\)",
    re.MULTILINE | re.DOTALL,
)


def rewritten(text: str, place: Path, shown_at: Path) -> str:
    """Give a page's text with links as they must be on the site.

    Parameters
    ----------
    text : str
        Markdown.
    place : Path
        The folder it was written for, which its links are relative to.
    shown_at : Path
        The folder of the page on which it is shown.

    Raises
    ------
    ValueError
        If a link leads to a file that does not exist.
    """

    def rewrite(found: re.Match[str]) -> str:
        if found["code"]:
            return found[0]
        target, hash_, anchor = found["target"].partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return found[0]
        path = Path(os.path.normpath(place / target))
        if not path.exists():
            raise ValueError(f"{place}: a link leads to {target}, which is not there")
        page = _on_site(path)
        if page is None:
            return found["words"]
        return f"{found['picture']}[{found['words']}]({os.path.relpath(page, shown_at)}{hash_}{anchor})"

    return _CODE_OR_LINK.sub(rewrite, text)


def _on_site(path: Path) -> Path | None:
    """Say which file of the site shows a file of the checkout; None if none does."""
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else ""
    if name in SHOWN:
        return DOCS / SHOWN[name]
    return path if path.is_relative_to(DOCS) and path.is_file() else None


def _read(app: Any, docname: str, source: list[str]) -> None:
    """Give the text of a page of the site."""
    place = (DOCS / docname).parent
    shown = {str(Path(page).with_suffix("")): name for name, page in SHOWN.items()}
    if docname in shown:
        source[0] = rewritten((ROOT / shown[docname]).read_text(encoding="utf-8"), ROOT, place)
        app.env.note_dependency(str(ROOT / shown[docname]))
    elif docname == _CHANGES:
        changelog = ROOT / "CHANGELOG.md"
        before = changelog.read_text(encoding="utf-8").partition("\n")[2] if changelog.exists() else ""
        fragments = section(f"After {app.config.release}" if before else "So far", read_fragments())
        source[0] = f"# What has changed\n\n{fragments}\n{before}"
    else:
        source[0] = rewritten(source[0], place, place)


def setup(app: Any) -> None:
    """Take part in the reading of every page."""
    app.connect("source-read", _read)
