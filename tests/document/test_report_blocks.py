"""A report is written as HTML, Markdown and CSV from the same blocks; nothing in it is run."""

import csv
import io
import re
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure

from studies.document.blocks import (
    Cell,
    Code,
    Drawing,
    Listing,
    Paragraph,
    Picture,
    Pictures,
    Report,
    Section,
    Table,
    words,
)
from studies.document.html import to_html
from studies.document.markdown import to_markdown
from studies.report.report import csv_text

EVIL = "<script>alert(1)</script>\"&'|`*[x](javascript:y)"


def report(text=EVIL):
    figure = Figure()
    figure.add_subplot().plot([1, 2])
    blocks = [
        Paragraph(content=[text, Cell(text=text, source=text, href="#one")], kind="verdict"),
        Listing(items=[text, [text, "b"]]),
        Code(lines=[f"run {text}"]),
        Table(
            name="numbers",
            caption=text,
            columns=[text, "value"],
            rows=[[text, Cell(text="90.0 %", key=0.9, bounds=(0.8, 0.95), source=text)]],
            anchors=["row-1"],
            folded=True,
        ),
        Drawing(name="line", figure=figure, caption=text, description=text),
        Pictures(caption=text, pictures=[Picture(png=b"\x89PNG", caption=text)]),
    ]
    section = Section(id="one", title=text, blocks=blocks)
    return Report(title=text, facts=[(text, text)], sections=[section], footer=text)


class Seen(HTMLParser):
    """Every element with its attributes."""

    def __init__(self):
        super().__init__()
        self.elements = []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))


def test_nothing_from_outside_becomes_an_element_or_an_attribute():
    plain, evil = Seen(), Seen()
    plain.feed(to_html(report("text")))
    evil.feed(to_html(report(EVIL)))
    assert [tag for tag, _ in evil.elements] == [tag for tag, _ in plain.elements]
    assert [set(given) for _, given in evil.elements] == [set(g) for _, g in plain.elements]


def test_the_page_asks_for_nothing_and_its_policy_forbids_it():
    page = to_html(report())
    seen = Seen()
    seen.feed(page)
    policies = [a["content"] for t, a in seen.elements if t == "meta" and "http-equiv" in a]
    assert policies and policies[0].startswith("default-src 'none'")
    for _, given in seen.elements:
        for name in ("src", "href", "xlink:href"):
            assert given.get(name, "#").startswith(("#", "data:"))
    assert "@import" not in page and "url(http" not in page


def test_a_number_carries_where_it_comes_from_and_tables_can_be_sorted():
    seen = Seen()
    seen.feed(to_html(report("text")))
    assert ("span", {"class": "number", "title": "text"}) in seen.elements
    assert any(tag == "td" and a.get("data-key") == "0.9" for tag, a in seen.elements)
    assert any(tag == "tr" and a.get("id") == "row-1" for tag, a in seen.elements)
    assert sum(tag == "th" and a.get("aria-sort") == "none" for tag, a in seen.elements) == 2


def test_markdown_says_the_same_and_escapes_it():
    text = to_markdown(report())
    # A block of code is shown as it is, whatever is in it.
    outside = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    assert not re.search(
        r"(?<!\\)[<\]`*]", outside.replace("](figures/line.svg)", "").replace("**", "")
    )
    for part in ("# ", "## ", "- ", "| ", "![", "figures/line.svg", "    run "):
        assert part in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {3}


def test_csv_has_the_numbers_unrounded_with_their_bounds():
    (table,) = report("text").tables
    rows = list(csv.reader(io.StringIO(csv_text(table))))
    assert rows == [["text", "value", "value low", "value high"], ["text", "0.9", "0.8", "0.95"]]


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-2+3", "@x", "\tx"])
def test_no_spreadsheet_takes_a_text_for_a_formula(text):
    table = Table(name="t", caption="", columns=["a"], rows=[[text]])
    (_, (cell,)) = csv.reader(io.StringIO(csv_text(table)))
    assert cell == f"'{text}"


def test_two_files_of_a_name_are_a_mistake_of_ours():
    table = Table(name="t", caption="", columns=["a"], rows=[])
    section = Section(id="s", title="", blocks=[table, table])
    with pytest.raises(AssertionError, match="two of a name"):
        Report(title="", facts=[], sections=[section])


def test_words_are_cells_whatever_they_are_given_as():
    assert words("a") == [Cell(text="a")]
    cell = Cell(text="b", key=1)
    assert words(cell) == [cell] and words(["a", cell]) == [Cell(text="a"), cell]
