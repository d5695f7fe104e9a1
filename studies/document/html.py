"""A report as one HTML file: no request leaves it, everything from outside is escaped.

Knows blocks and the template; nothing of studies.
"""

import base64
from typing import Any

import jinja2
from markupsafe import Markup

from studies.document.blocks import (
    Code,
    Drawing,
    Listing,
    Paragraph,
    Pictures,
    Report,
    Table,
    words,
)

KINDS: dict[type[Any], str] = {
    Paragraph: "paragraph",
    Listing: "listing",
    Code: "code",
    Table: "table",
    Drawing: "drawing",
    Pictures: "pictures",
}


def to_html(report: Report) -> str:
    """The page. It may load nothing: its policy forbids it, should a text get through."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("studies.document"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"words": words, "kind": lambda block: KINDS[type(block)]}
    environment.filters |= {"svg": _svg, "base64": _base64, "is_number": _is_number}
    return environment.get_template("report.html.jinja").render(report=report)


def _svg(drawing: Drawing) -> Markup:
    # Made by us from escaped texts: the one thing that is not escaped again.
    return Markup(drawing.svg)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _is_number(cell: Any) -> bool:
    return isinstance(cell.key, int | float)
