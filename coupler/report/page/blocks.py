"""Blocks: what a section of a page is made of, as plain data that the template knows how to show."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from coupler.report.page.picture import Picture


@dataclass(frozen=True)
class Words:
    """A paragraph.

    Parameters
    ----------
    text : str
        Plain text; the template escapes it.
    quiet : bool
        Whether it only says what is missing, or how something was counted.
    """

    text: str
    quiet: bool = False
    kind: str = field(default="words", init=False)


@dataclass(frozen=True)
class Grid:
    """A table.

    Parameters
    ----------
    head : sequence of str
        Column headings; none for a table of names and values.
    rows : sequence of sequence of str
        Cells, as many in each row.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    kind: str = field(default="grid", init=False)


@dataclass(frozen=True)
class Drawn:
    """A picture with its caption."""

    picture: Picture
    kind: str = field(default="drawn", init=False)


@dataclass(frozen=True)
class Listing:
    """Text that keeps its line breaks, folded away until somebody opens it."""

    title: str
    text: str
    kind: str = field(default="listing", init=False)


@dataclass(frozen=True)
class Strip:
    """One field at every moment, one layer each, of which a slider shows one.

    Parameters
    ----------
    field : str
        Name with unit.
    layers : sequence of Markup
        An ``img`` or ``svg`` element per moment.
    low, high : str
        Ends of the scale.
    colours : str
        A CSS gradient from low to high; empty where there are no colours.
    """

    field: str
    layers: Sequence[Markup]
    low: str
    high: str
    colours: str


@dataclass(frozen=True)
class Film:
    """Fields over time behind a slider.

    Parameters
    ----------
    moments : sequence of str
        What each moment is called.
    strips : sequence of Strip
        A field each, with as many layers as there are moments.
    note : str
        What else must be known to read it; may be empty.
    """

    moments: Sequence[str]
    strips: Sequence[Strip]
    note: str
    kind: str = field(default="film", init=False)


Block = Words | Grid | Drawn | Listing | Film


@dataclass(frozen=True)
class Section:
    """A section of a page: its blocks, one column per run.

    Parameters
    ----------
    id : str
        Anchor.
    title : str
        Heading.
    columns : sequence of sequence of Block
        One per run; one for all of them where ``whole``.
    whole : bool
        Whether the section is about all runs together.
    """

    id: str
    title: str
    columns: Sequence[Sequence[Block]]
    whole: bool = False
