"""The report in a real browser: drawn, within the screen, sortable, printable, and silent."""

import shutil

import pytest
from browser import opened
from bundles import run_study

import studies
from studies.database.storage import load_study, open_storage
from studies.database.study import read_study, write_identity
from studies.report.report import report_study

EVIL = '<img src=x onerror="alert(1)"><script>alert(2)</script>'


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    run_study(home, trials=4)
    given = {"storage": str(home / "studies.db"), "cache_dir": home / "cache"}
    bundle = studies.export_bundle("s", out=home / "b", **given)
    studies.evaluate_bundle(bundle.folder, **given)
    return home


@pytest.fixture(scope="module")
def page_file(home):
    return report_study("s", str(home / "studies.db"), out=home / "r").folder / "report.html"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 400])
def test_figures_and_tables_are_drawn_and_nothing_overflows(page_file, width, dark):
    with opened(page_file, width=width, dark=dark) as (page, complaints):
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        figures = page.locator("figure > svg")
        assert figures.count() >= 9
        for i in range(figures.count()):
            box = figures.nth(i).bounding_box()
            assert box["width"] > 200 and box["height"] > 60, figures.nth(i).evaluate("e => e.id")
            marks = figures.nth(i).locator("path, use, text").count()
            assert marks > 10
        tables = page.locator("table")
        assert tables.count() >= 8
        assert all(page.locator("table").nth(i).locator("tbody tr").count() for i in range(8))
        pictures = page.locator("img")
        loaded = "images => images.every(image => image.complete && image.naturalWidth > 0)"
        assert pictures.count() > 0 and pictures.evaluate_all(loaded)
        assert complaints == []


def test_text_can_be_read_in_light_and_dark(page_file):
    """Text of the page and of a figure has the colour of its surroundings, unlike the ground."""
    seen = set()
    for dark in (False, True):
        with opened(page_file, dark=dark) as (page, _):
            colour = "e => getComputedStyle(e).color"
            text = page.locator("main p").first.evaluate(colour)
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            drawn = page.locator("figure > svg text").first
            fill = drawn.evaluate("e => getComputedStyle(e).fill")
            assert text == fill != ground
            seen.add((text, ground))
    assert len(seen) == 2


def test_a_table_is_sorted_by_the_keyboard(page_file):
    with opened(page_file) as (page, complaints):
        page.locator("#appendix details").first.evaluate("e => e.open = true")
        table = page.locator("#table-trials")
        button = table.locator("th button").first
        values = "rows => rows.map(row => Number(row.cells[0].dataset.key))"
        rows = table.locator("tbody tr")
        button.focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        assert rows.evaluate_all(values) == [3, 2, 1, 0]
        assert table.locator("th").first.get_attribute("aria-sort") == "descending"
        page.keyboard.press("Enter")
        assert rows.evaluate_all(values) == [0, 1, 2, 3]
        assert complaints == []


def test_a_link_to_a_trial_opens_the_folded_table(page_file):
    with opened(page_file) as (page, complaints):
        page.locator("a[href^='#trial-']").first.click()
        page.wait_for_function("document.querySelector(location.hash).closest('details').open")
        assert page.locator("tr:target").is_visible()
        assert complaints == []


def test_it_prints_to_a4(page_file, tmp_path):
    with opened(page_file) as (page, complaints):
        content = page.pdf(path=str(tmp_path / "r.pdf"), prefer_css_page_size=True)
        assert content.startswith(b"%PDF") and content.count(b"/Type /Page\n") >= 4
        page.emulate_media(media="print")
        assert not page.locator("nav").is_visible()
        assert complaints == []


def test_markup_in_class_names_and_paths_does_nothing(home, tmp_path):
    other = shutil.copytree(home, tmp_path / "home")
    study = load_study(open_storage(str(other / "studies.db")), "s")
    identity = read_study(study).identity
    names = [EVIL, "$x^2$ & <b>"]
    identity["data"]["classes"], identity["data"]["source"] = names, f"/data/{EVIL}"
    identity["data"]["counts"] = {
        split: dict(zip(names, counts.values(), strict=True))
        for split, counts in identity["data"]["counts"].items()
    }
    write_identity(study, identity)
    written = report_study("s", str(other / "studies.db"), out=tmp_path / "r")
    with opened(written.folder / "report.html") as (page, complaints):
        assert EVIL in page.locator("main").inner_text()
        assert page.locator("img[src='x']").count() == 0
        assert page.locator("script").count() == 1
        assert complaints == []
