"""How a figure becomes SVG: safe, alone with itself, alike every time, in the page's colours."""

import re
import subprocess
import sys
import threading
from xml.etree import ElementTree

import matplotlib
import pytest
from paths import ROOT
from PIL import Image

from studies.document.drawing import (
    INK,
    LOOKS,
    STYLE,
    house_style,
    look_of,
    new_figure,
    plain,
    save,
    to_svg,
)

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = 'cost $10$ <script>alert("1")</script> & \ud800\x00\n]]>'


@house_style()
def drawn(label="a & b", x=(1, 2, 3)):
    figure = new_figure()
    axes = figure.subplots()
    axes.plot(x, [1, 4, 2], marker="o", color=LOOKS["fine_tuning"].colour)
    axes.bar([1, 2], [1, 2], hatch="//", facecolor="none", edgecolor=INK)
    axes.set_xlabel(plain(label))
    return figure


def svg_of(figure, prefix="one", title="A title", description="What it shows"):
    return to_svg(figure, title=title, description=description, prefix=prefix)


def ids_in(svg):
    return [e.get("id") for e in ElementTree.fromstring(svg).iter() if e.get("id")]


def test_svg_is_xml_with_a_view_box_and_takes_the_width_of_its_place():
    root = ElementTree.fromstring(svg_of(drawn()))
    assert root.tag == f"{SVG}svg"
    assert root.get("viewBox") == "0 0 460.8 259.2"
    assert root.get("width") is None and root.get("height") is None


def test_svg_has_no_prolog_no_style_sheet_and_no_metadata():
    svg = svg_of(drawn())
    assert svg.startswith("<svg ")
    assert not re.search(r"<!|<\?|<style|<metadata|<script|matplotlib", svg, re.IGNORECASE)


def test_svg_is_an_image_with_a_name_and_a_description():
    root = ElementTree.fromstring(svg_of(drawn(), title="T < U", description="D & E"))
    title, description = root[0], root[1]
    assert (title.tag, title.text) == (f"{SVG}title", "T < U")
    assert (description.tag, description.text) == (f"{SVG}desc", "D & E")
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"


def test_svg_asks_for_nothing_from_elsewhere():
    svg = svg_of(drawn())
    without_names = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    assert "http" not in without_names and "//" not in without_names
    assert set(re.findall(r'href="(.)', svg)) == {"#"}


def test_every_reference_finds_its_id():
    svg = svg_of(drawn())
    references = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    assert len(references) >= 3  # a clip path, a marker, a hatch
    assert references <= set(ids_in(svg))


def test_two_figures_of_a_page_share_no_id():
    one, two = ids_in(svg_of(drawn(), "one")), ids_in(svg_of(drawn(), "two"))
    assert len(set(one + two)) == len(one) + len(two) > 8


@pytest.mark.parametrize("prefix", ["", "1a", "a b", 'a"><x', "ä", "a\n"])
def test_a_prefix_that_is_no_identifier_is_refused(prefix):
    with pytest.raises(ValueError, match="`prefix` must be"):
        svg_of(drawn(), prefix)


def test_text_and_axes_take_the_colour_of_the_page():
    svg = svg_of(drawn())
    assert "currentColor" in svg
    assert INK not in svg.lower() and "#000" not in svg
    assert set(re.findall(r"#[0-9a-f]{6}", svg)) == {LOOKS["fine_tuning"].colour.lower()}


def test_text_stays_text_in_the_font_of_the_page():
    svg = svg_of(drawn())
    assert "font-family" not in svg and "DejaVu" not in svg
    texts = [e.text for e in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    assert "a & b" in texts
    assert svg.count("font-size") == len(texts)


def test_the_same_figure_gives_the_same_bytes():
    assert svg_of(drawn()) == svg_of(drawn())
    figure = drawn()
    assert svg_of(figure) == svg_of(figure)


def test_hostile_names_are_text_and_nothing_else():
    svg = svg_of(drawn(HOSTILE), title=HOSTILE, description=HOSTILE)
    root = ElementTree.fromstring(svg)
    expected = 'cost $10$ <script>alert("1")</script> & \ufffd\ufffd ]]>'
    assert [e.text for e in root.iter(f"{SVG}text")].count(expected) == 1
    assert root[0].text == root[1].text == expected
    assert not [e for e in root.iter() if "script" in e.tag]


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("normal", None, "normal"),
        ("two\nlines\t here ", None, "two lines here"),
        ("turned\u202eback", None, "turned\ufffdback"),
        ("half\ud800", None, "half\ufffd"),
        ("肺炎", None, "肺炎"),
        ("abcdefghij", 10, "abcdefghij"),
        ("abcdefghijk", 10, "abcdef…ijk"),
        (7, None, "7"),
        ("", 3, ""),
    ],
)
def test_names_become_one_legal_line(text, width, expected):
    assert plain(text, width) == expected


@pytest.mark.parametrize("width", range(1, 12))
def test_a_shortened_name_is_as_long_as_it_may_be(width):
    assert len(plain("x" * 12, width)) == width


def test_every_strategy_has_its_own_colour_marker_and_line():
    assert set(LOOKS) == {"feature_extraction", "fine_tuning"}
    for part in ("label", "colour", "marker", "linestyle"):
        assert len({getattr(look, part) for look in LOOKS.values()}) == len(LOOKS)


def test_an_unknown_strategy_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="'fine-tuning'; choose from feature_extraction, fine"):
        look_of("fine-tuning")


def test_style_ignores_the_users_own_and_leaves_it_as_it_was():
    with matplotlib.rc_context({"font.size": 33, "axes.facecolor": "red"}):
        theirs = svg_of(drawn())
        assert matplotlib.rcParams["font.size"] == 33
    assert theirs == svg_of(drawn())
    assert matplotlib.rcParams["svg.hashsalt"] != STYLE["svg.hashsalt"]


def test_one_thread_draws_at_a_time():
    entered = threading.Event()

    @house_style()
    def draw():
        entered.set()

    thread = threading.Thread(target=draw)
    with house_style():
        thread.start()
        assert not entered.wait(0.2)
    assert entered.wait(10)
    thread.join()


def test_figures_drawn_in_threads_are_those_drawn_alone():
    alone, found = svg_of(drawn()), []
    threads = [threading.Thread(target=lambda: found.append(svg_of(drawn()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [alone] * 4


def test_saved_files_are_a_picture_on_white_and_an_svg_of_its_own_size(tmp_path):
    folder = tmp_path / "new" / "figures"
    png, svg = save(drawn(), folder, "cost", title="T", description="D")
    assert [png.name, svg.name] == ["cost.png", "cost.svg"]
    with Image.open(png) as image:
        assert image.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)
        assert image.width == 1280
    root = ElementTree.fromstring(svg.read_text(encoding="utf-8"))
    assert (root.get("width"), root.get("font-family")) == ("460.8pt", "sans-serif")


def test_saved_files_are_alike_every_time(tmp_path):
    one = save(drawn(), tmp_path / "1", "x", title="T", description="D")
    two = save(drawn(), tmp_path / "2", "x", title="T", description="D")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_drawing_loads_neither_torch_nor_pyplot():
    code = (
        "import sys, studies.report.figures; "
        "sys.exit(bool({'torch', 'optuna', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
