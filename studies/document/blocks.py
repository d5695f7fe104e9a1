"""What a report consists of, whatever it is written as: paragraphs, tables, figures, pictures.

Knows neither studies nor HTML nor Markdown. Texts are plain: who writes them down escapes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from matplotlib.figure import Figure

from studies.document.drawing import to_svg


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A text with where it comes from: ``source`` says which trials, seeds and images.

    ``href`` leads to a place in the report; ``key`` is what a table is sorted by, and what stands
    in the CSV file, the text if left out; there ``bounds`` have columns of their own.
    ``quiet``: it looks like other text.
    """

    text: str
    source: str = ""
    href: str = ""
    key: float | str | None = None
    bounds: tuple[float, float] | None = None
    quiet: bool = False


Inline = str | Cell
Words = Inline | Sequence[Inline]


def words(given: Words) -> list[Cell]:
    """Text as cells, one behind the other."""
    parts = [given] if isinstance(given, str | Cell) else given
    return [part if isinstance(part, Cell) else Cell(text=part) for part in parts]


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    """One paragraph; ``kind`` is "", "verdict", "note" or "warning"."""

    content: Words
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Points of a list."""

    items: Sequence[Words]


@dataclass(frozen=True, kw_only=True)
class Code:
    """Commands, one a line."""

    lines: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; ``name`` is that of its CSV file. Numbers are aligned to the right.

    ``anchors`` are ids of rows, so that other places can lead there. ``folded``: closed at first.
    """

    name: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Words]]
    anchors: Sequence[str] = ()
    folded: bool = False


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure; ``description`` says in words what is to be seen, for who can't see it."""

    name: str
    figure: Figure
    caption: str
    description: str

    @cached_property
    def svg(self) -> str:
        """The figure as SVG, made once: it takes longer than all the rest."""
        return to_svg(
            self.figure, prefix=self.name, title=self.caption, description=self.description
        )


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG image with its caption."""

    png: bytes
    caption: str


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Images side by side."""

    caption: str
    pictures: Sequence[Picture]


Block = Paragraph | Listing | Code | Table | Drawing | Pictures


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the report under a heading; ``level`` is 2 or 3."""

    id: str
    title: str
    blocks: Sequence[Block]
    level: int = 2


@dataclass(frozen=True, kw_only=True)
class Report:
    """All of it. ``facts`` stand below the title, name and value."""

    title: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    footer: str = ""
    drawings: Sequence[Drawing] = field(init=False)
    tables: Sequence[Table] = field(init=False)

    def __post_init__(self) -> None:
        """Find what is written into files of its own; two of a name would overwrite each other."""
        blocks = [block for section in self.sections for block in section.blocks]
        drawings = [block for block in blocks if isinstance(block, Drawing)]
        tables = [block for block in blocks if isinstance(block, Table)]
        for names in ([d.name for d in drawings], [t.name for t in tables]):
            assert len(set(names)) == len(names), f"two of a name: {names}"
        object.__setattr__(self, "drawings", drawings)
        object.__setattr__(self, "tables", tables)
