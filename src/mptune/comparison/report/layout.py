"""The shapes that a page is made of; templates/report.html draws them. Texts only: no numbers, no results."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Entry:
    """One cell of a table."""

    text: str
    spread: str = ""  # set small behind the text: ± 1.2
    mark: str = ""
    kind: str = ""  # best, words, long (words that may break)


Column = tuple[str, tuple[str, ...]]  # its name, and the small lines below
Named = tuple[str, tuple[Entry, ...]]  # a row: its name and its cells
Groups = tuple[tuple[str, tuple[Named, ...]], ...]  # a title, which may be empty, and its rows


@dataclass(frozen=True)
class Grid:
    """A table: columns with a name and lines below it, groups of rows with a title each."""

    shape: ClassVar[str] = "grid"
    caption: str
    columns: tuple[Column, ...]
    groups: Groups
    notes: tuple[str, ...] = ()
    kind: str = ""  # published

    def has_words(self, column: int) -> bool:
        """Return whether a column holds words, which begin at its left."""
        return any("words" in cells[column].kind for _, rows in self.groups for _, cells in rows)


@dataclass(frozen=True)
class Picture:
    """A chart with its caption, and its numbers as a table where no table of the page has them."""

    shape: ClassVar[str] = "picture"
    svg: str  # our own, and so not escaped
    caption: str
    numbers: Grid | None = None


@dataclass(frozen=True)
class Pictures:
    """Charts side by side, each with a name, under one legend and one caption."""

    shape: ClassVar[str] = "pictures"
    legend: tuple[tuple[str, str], ...]  # a piece of line as SVG, and whose it is
    charts: tuple[tuple[str, str], ...]  # name and SVG
    caption: str
    numbers: Grid | None = None
    kind: str = ""  # wide


@dataclass(frozen=True)
class Heading:
    """The title of what follows within a section."""

    shape: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Folded:
    """Text that opens on demand."""

    shape: ClassVar[str] = "folded"
    title: str
    text: str


Block = Grid | Picture | Pictures | Heading | Folded


@dataclass(frozen=True)
class Section:
    """A part of the page; without blocks, its sentences say what is missing."""

    id: str
    title: str
    sentences: tuple[str, ...]
    blocks: tuple[Block, ...] = ()
