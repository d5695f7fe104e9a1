"""How a figure becomes SVG in a page, or files in a folder: style, colours, names made harmless.

Knows matplotlib's objects, never pyplot: no window, no figure that outlives its use. Knows the
names of the strategies and nothing else of studies.
"""

import io
import re
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

WIDTH_INCHES, HEIGHT_INCHES = 6.4, 3.6
PNG_DPI, SMALL_PNG_DPI = 200, 100
IMAGE_DPI = 120  # Of a thousand marks in an SVG, drawn as one image.

# Text, axes and all that is no strategy. Almost black in PNG; in SVG `to_svg` lets it be the
# colour of the page's text, whether that is dark on light or light on dark.
INK = "#0a0b0c"

STYLE: Mapping[str, Any] = MappingProxyType(
    {
        "font.size": 10,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.fontsize": 9,
        "legend.frameon": False,
        "legend.handlelength": 2.4,
        "legend.borderaxespad": 0.2,
        "axes.labelsize": 10,
        "axes.titlesize": 10,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "savefig.facecolor": "none",
        "grid.alpha": 0.15,
        "hatch.linewidth": 0.8,
        **dict.fromkeys(
            (
                "text.color",
                "axes.edgecolor",
                "axes.labelcolor",
                "axes.titlecolor",
                "xtick.color",
                "ytick.color",
                "legend.labelcolor",
                "grid.color",
                "patch.edgecolor",
            ),
            INK,
        ),
        # Names from outside may hold `$`: never mathtext, never TeX.
        "text.parse_math": False,
        "text.usetex": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "studies",
    }
)

SVG = "{http://www.w3.org/2000/svg}"
XLINK = "{http://www.w3.org/1999/xlink}"
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
REFERENCE = re.compile(r"url\(#([^)]+)\)|^#(.+)$")
FONT_FAMILY = re.compile(r"font-family: [^;]*;? ?")
# Before 3.11 matplotlib writes weight, size and families in one.
FONT = re.compile(r"font: (?:([0-9]+) )?([0-9.]+px) [^;]*")
LONG_DECIMALS = re.compile(r"-?\d+\.\d{3,}")

# rcParams belong to the whole process, and the report may be written from several threads.
_STYLE_LOCK = threading.RLock()


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one strategy looks like in every figure, told apart without colour as well."""

    label: str
    colour: str
    marker: str
    linestyle: str


# Okabe and Ito's vermillion and blue, which the colour-blind tell apart (M. Okabe, K. Ito, "Color
# universal design", 2008).
LOOKS: Mapping[str, Look] = MappingProxyType(
    {
        "feature_extraction": Look(
            label="feature extraction", colour="#0072B2", marker="o", linestyle="--"
        ),
        "fine_tuning": Look(label="fine-tuning", colour="#D55E00", marker="^", linestyle="-"),
    }
)


def look_of(strategy: str) -> Look:
    """The look of a strategy.

    Raises:
        ValueError: there is no such strategy.
    """
    if strategy not in LOOKS:
        raise ValueError(f"Unknown strategy {strategy!r}; choose from {', '.join(LOOKS)}.")
    return LOOKS[strategy]


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's defaults and our style, whatever the user's matplotlibrc says.

    As a decorator too. One thread at a time; other code that draws meanwhile would get our style.
    """
    with _STYLE_LOCK, matplotlib.rc_context(), warnings.catch_warnings():
        # A page's font has glyphs that matplotlib's has not.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(cast(Any, STYLE))
        yield


def new_figure(height_inches: float = HEIGHT_INCHES) -> Figure:
    """An empty figure as wide as all of them; to be called within `house_style`."""
    return Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")


def plain(text: object, width: int | None = None) -> str:
    """One line that is legal in XML and at most ``width`` characters long.

    White space is joined; control characters, halves of characters and marks that turn the
    direction of writing become U+FFFD; a longer text loses its middle, as names differ at both
    ends.
    """
    kept = (
        c if c.isprintable() or c.isspace() or c in "\u200c\u200d" else "\ufffd" for c in str(text)
    )
    line = " ".join("".join(kept).split())
    if width is None or len(line) <= width:
        return line
    tail = (width - 1) // 3
    return f"{line[: width - 1 - tail]}…{line[len(line) - tail :]}"


def to_svg(figure: Figure, *, title: str, description: str, prefix: str) -> str:
    """A figure as ``<svg>`` to be put into a page: as wide as its place, coloured as its text.

    The same figure gives the same text every time. ``prefix`` begins every id, so that figures of
    one page don't meet.

    Raises:
        ValueError: ``prefix`` is no identifier of ASCII letters, digits, ``-`` and ``_``.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", prefix):
        raise ValueError(
            f"`prefix` must be ASCII letters, digits, - and _, a letter first, but got {prefix!r}."
        )
    root = _drawn(figure)
    _rename_ids(root, prefix)
    for element in root.iter():
        _settle(element)
    view_box = root.get("viewBox", "")
    root.attrib.clear()
    root.attrib.update(
        {
            "xmlns": SVG.strip("{}"),
            "xmlns:xlink": XLINK.strip("{}"),
            "viewBox": view_box,
            "role": "img",
            "aria-labelledby": f"{prefix}-title {prefix}-description",
            "fill": "currentColor",
            # What matplotlib says in a style sheet, which would hold for the whole page.
            "stroke-linejoin": "round",
        }
    )
    for position, (name, text) in enumerate((("title", title), ("description", description))):
        tag = {"description": "desc"}.get(name, name)
        said = ElementTree.Element(tag, id=f"{prefix}-{name}")
        said.text = plain(text)
        root.insert(position, said)
    return ElementTree.tostring(root, encoding="unicode")


def save(figure: Figure, folder: Path, name: str, *, title: str, description: str) -> list[Path]:
    """Write ``name.png`` and ``name.svg`` for a paper or a slide; returns their paths.

    PNG is on white. SVG has a size and a font of its own, as there is no page to give them.

    Raises:
        OSError: the files can't be written.
    """
    svg = to_svg(figure, title=title, description=description, prefix="figure")
    width, height = (72 * inches for inches in figure.get_size_inches())
    own = f'<svg width="{width:g}pt" height="{height:g}pt" font-family="sans-serif" '
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    folder.mkdir(parents=True, exist_ok=True)
    paths[0].write_bytes(to_png(figure, dpi=PNG_DPI))
    paths[1].write_text(own + svg.removeprefix("<svg "), encoding="utf-8")
    return paths


def to_png(figure: Figure, dpi: int = SMALL_PNG_DPI) -> bytes:
    """A figure as PNG on white."""
    written = io.BytesIO()
    with house_style():
        figure.savefig(
            written, format="png", dpi=dpi, facecolor="white", metadata={"Software": None}
        )
    return written.getvalue()


def _drawn(figure: Figure) -> ElementTree.Element:
    """What matplotlib writes, as a tree, without its style sheet."""
    written = io.StringIO()
    with house_style():
        figure.savefig(written, format="svg", dpi=IMAGE_DPI, metadata=NO_METADATA)
    root = ElementTree.fromstring(written.getvalue())
    for parent in list(root.iter()):
        for sheet in parent.findall(f"{SVG}style"):
            parent.remove(sheet)
    return root


def _rename_ids(root: ElementTree.Element, prefix: str) -> None:
    """Drop ids that nothing refers to; number the others behind ``prefix``."""
    values = [value for element in root.iter() for value in element.attrib.values()]
    found = (match for value in values for match in REFERENCE.finditer(value))
    used = dict.fromkeys(match[1] or match[2] for match in found)
    names = {old: f"{prefix}-{number}" for number, old in enumerate(used)}

    def renamed(match: re.Match[str]) -> str:
        return f"url(#{names[match[1]]})" if match[1] else f"#{names[match[2]]}"

    for element in root.iter():
        own = element.attrib.pop("id", None)
        for key, value in element.attrib.items():
            element.set(key, REFERENCE.sub(renamed, value))
        if own in names:
            element.set("id", names[own])


def _settle(element: ElementTree.Element) -> None:
    """Colours and fonts of the page, short numbers, names that need no namespace."""
    element.tag = element.tag.removeprefix(SVG)
    if element.tag != "text" and not (element.text or "").strip():
        element.text = None
    element.tail = None
    for key, value in list(element.attrib.items()):
        if key in ("style", "fill", "stroke"):
            value = FONT_FAMILY.sub("", value.replace(INK, "currentColor"))
            value = FONT.sub(_size_and_weight, value)
        elif key in ("d", "x", "y"):
            value = LONG_DECIMALS.sub(lambda match: f"{float(match[0]):.2f}", value)
        del element.attrib[key]
        element.set(key.replace(XLINK, "xlink:"), value)


def _size_and_weight(font: re.Match[str]) -> str:
    return f"font-weight: {font[1] or 400}; font-size: {font[2]}"
