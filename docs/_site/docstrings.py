"""Docstrings as the site needs them: prose that follows a numpydoc section becomes a note.

House docstrings end with a sentence such as "Collective: yes." after the last section; numpydoc has no such place, and
would take it for one more parameter or error.
"""

import re
from typing import Any

_SECTIONS = ("Parameters", "Attributes", "Returns", "Yields", "Raises", "Other Parameters")


def with_notes(lines: list[str]) -> list[str]:
    """Put a heading above every paragraph of prose that stands after a section.

    Parameters
    ----------
    lines : list of str
        A docstring without its indentation.

    Returns
    -------
    list of str
        The same with ``Notes`` sections.
    """
    found: list[str] = []
    inside = False
    for number, line in enumerate(lines):
        below = lines[number + 1] if number + 1 < len(lines) else ""
        if re.fullmatch(r"-{3,}", below) and line.strip():
            inside = line.strip() in _SECTIONS
        elif inside and _begins_prose(lines, number):
            found += ["Notes", "-----"]
            inside = False
        found.append(line)
    return found


def _begins_prose(lines: list[str], number: int) -> bool:
    """Say whether a paragraph begins here that is no entry of the section: not indented, and nothing of it is."""
    line, above = lines[number], lines[number - 1] if number else ""
    if above.strip() or not line.strip() or line.startswith(" "):
        return False
    end = next((place for place in range(number, len(lines)) if not lines[place].strip()), len(lines))
    return not any(row.startswith(" ") for row in lines[number:end])


def _process(app: Any, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    lines[:] = with_notes(lines)


def setup(app: Any) -> None:
    """Be asked before napoleon is."""
    app.connect("autodoc-process-docstring", _process, priority=100)
