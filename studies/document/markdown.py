"""A report as Markdown. Knows blocks; nothing of studies."""

import re

from studies.document.blocks import (
    Block,
    Cell,
    Code,
    Drawing,
    Listing,
    Paragraph,
    Report,
    Section,
    Table,
    Words,
    words,
)


def to_markdown(report: Report, figures: str = "figures") -> str:
    """The text.

    Args:
        figures: the folder with the figures as SVG, seen from the file.
    """
    head = [
        f"# {escaped(report.title)}",
        *(f"- {escaped(k)}: {escaped(v)}" for k, v in report.facts),
    ]
    parts = ["\n".join(head)]
    parts += [_section(section, figures) for section in report.sections]
    return "\n\n".join([*parts, escaped(report.footer)]).rstrip() + "\n"


def _section(section: Section, figures: str) -> str:
    heading = f"{'#' * section.level} {escaped(section.title)}"
    return "\n\n".join([heading, *(_block(block, figures) for block in section.blocks)])


def _block(block: Block, figures: str) -> str:
    match block:
        case Paragraph():
            text = _text(block.content)
            return f"**{text}**" if block.kind == "verdict" else text
        case Listing():
            return "\n".join(f"- {_text(item)}" for item in block.items)
        case Code():
            return "\n".join(f"    {' '.join(line.split())}" for line in block.lines)
        case Table():
            return _table(block)
        case Drawing():
            image = f"![{escaped(block.description)}]({figures}/{block.name}.svg)"
            return f"{image}\n\n{escaped(block.caption)}"
        case _:
            captions = "; ".join(escaped(picture.caption) for picture in block.pictures)
            return f"{escaped(block.caption)} (pictures: in the HTML file) {captions}".rstrip()


def _table(table: Table) -> str:
    head = "| " + " | ".join(map(escaped, table.columns)) + " |"
    rows = ["| " + " | ".join(_text(cell) or " " for cell in row) + " |" for row in table.rows]
    return "\n".join(
        [f"{escaped(table.caption)}\n", head, "|" + "---|" * len(table.columns), *rows]
    )


def _text(given: Words) -> str:
    return re.sub(r"\s+", " ", "".join(escaped(_cell(cell)) for cell in words(given))).strip()


def _cell(cell: Cell) -> str:
    return cell.text


def escaped(text: object) -> str:
    """A text that Markdown shows as it is, in one line."""
    line = "".join(c if c.isprintable() else " " for c in str(text))
    return re.sub(r"([\\`*_{}\[\]#!|<>~&:@$])", r"\\\1", line)
