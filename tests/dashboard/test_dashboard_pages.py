"""The dashboard in a real browser: of a study that is finished, and of one that runs.

Real images where they are beside the project, the phantom elsewhere; real ImageNet weights.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from browser import visited
from dashboards import ask, running
from paths import SHARED

from studies.database.storage import load_study, open_existing
from studies.database.trials import best_trials, count_states, read_trials

pytestmark = pytest.mark.slow

XRAYS = SHARED / "data" / "chest_xray"
IMAGES = {"train": 60, "test": 20}  # Of each class.
FIGURES = (
    "metric-against-seconds",
    "unfrozen-layers-against-metric",
    "budget-spent-and-saved",
)
OWN_COLUMNS = ("seconds", "num_trainable_parameters", "train_val_gap", "peak_memory_mb")


def images(folder):
    """What to study: a few X-rays, or the phantom."""
    if not XRAYS.is_dir():
        return "phantom:train=160,test=40"
    for split, count in IMAGES.items():
        for kind in sorted((XRAYS / split).iterdir()):
            (folder / split / kind.name).mkdir(parents=True)
            for file in sorted(kind.iterdir())[:count]:
                shutil.copy(file, folder / split / kind.name / file.name)
    return str(folder)


def command(home, *more):
    return [
        *(sys.executable, "-m", "studies", "run", "--name", "s", "--data", images(home / "data")),
        *("--backbones", "efficientnet_lite0", "--image-size", "64", "--epochs", "4"),
        *(
            "--no-report",
            "--storage",
            str(home / "studies.db"),
            "--cache-dir",
            str(home / "cache"),
        ),
        *("--set", "num_unfrozen_layers=1..6", *more),
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The database of a study with repeats and controls."""
    home = tmp_path_factory.mktemp("finished")
    done = subprocess.run(
        command(home, "--trials", "16", "--top", "1"), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return home / "studies.db"


def drawn(page, plot):
    """Wait until a plot is there, with something in it."""
    escaped = plot.replace(":", "\\:")
    marks = page.locator(f"#{escaped} .trace, #{escaped} canvas")
    marks.first.wait_for(state="attached")


def read_study_page(page, url, study=1):
    page.goto(f"{url}dashboard/studies/{study}")
    for plot in ("plot-history", "graph-hyperparameter-importances", "graph-timeline"):
        drawn(page, plot)
    for figure in FIGURES:
        drawn(page, f"user-defined-plot:{figure}")
    drawn(page, "graph-intermediate-values")


def read_analytics(page, url):
    page.goto(f"{url}dashboard/studies/1/analytics")
    for plot in ("plot-slice", "plot-edf-0"):
        drawn(page, plot)


def read_trial_list(page, url):
    """Parallel coordinates, and the table with our columns, no row a screen high."""
    page.goto(f"{url}dashboard/studies/1/smartSelection")
    drawn(page, "plot-parallel-coordinate")
    heads = page.locator("th").all_inner_texts()
    for column in OWN_COLUMNS:
        assert any(column in head for head in heads), (column, heads)
    for param in ("backbone", "strategy", "num_unfrozen_layers"):
        assert any(f"Param {param}" in head for head in heads), (param, heads)
    assert not any("result" in head or "provenance" in head for head in heads), heads
    row = page.locator("tbody tr").first.bounding_box()
    assert row["height"] < 80, row


def read_trial(page, url, study, number, words):
    page.goto(f"{url}dashboard/studies/{study}/trials?numbers={number}")
    page.get_by_text(words).first.wait_for()
    page.get_by_text("history.csv").first.wait_for()
    page.get_by_text("predictions.npz").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def pictures(page):
    """Widths in pixels of the pictures that are shown."""
    page.locator("img[src*=artifacts]").first.wait_for()
    page.wait_for_load_state("networkidle")
    return page.evaluate(
        "Array.from(document.querySelectorAll('img[src*=artifacts]')).map(i => i.naturalWidth)"
    )


def test_a_finished_study_explains_itself(finished):
    storage = open_existing(str(finished))
    best = best_trials(read_trials(load_study(storage, "s")), "accuracy")[0].number
    with running(finished) as server, visited(server.url) as (page, told):
        page.goto(f"{server.url}dashboard")
        for name in ("s", "s/confirm", "s/controls"):
            page.get_by_text(f". {name}", exact=False).first.wait_for()
        read_study_page(page, server.url)
        read_analytics(page, server.url)
        read_trial_list(page, server.url)
        read_trial(page, server.url, 1, best, "Validation accuracy")
        assert pictures(page) == [640, 640]
        read_trial(page, server.url, 2, 0, "with another seed")
        assert pictures(page) == [640, 640]
        read_trial(page, server.url, 3, 0, "Control.")
        for study, words in (
            (1, "Question and verdict"),
            (1, "python -m studies run --name s"),
            (2, "the best of each strategy over seeds"),
            (3, "what must be beaten"),
        ):
            page.goto(f"{server.url}dashboard/studies/{study}/note")
            page.get_by_text(words).first.wait_for()
        assert page.get_by_text("transfer-studies").count() == 0  # The mark of a note of ours.
    assert told == []


@pytest.mark.parametrize("read_only", [False, True])
def test_a_running_study_explains_itself_and_its_figures_follow(tmp_path, read_only):
    database = tmp_path / "studies.db"
    log = tmp_path / "log"
    with log.open("w") as stderr:
        worker = subprocess.Popen(
            command(tmp_path, "--trials", "500", "--no-confirm"),
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        wait_for_trials(database, worker, log, 8)
        with (
            running(database, read_only=read_only) as server,
            visited(server.url) as (page, told),
        ):
            # The study draws them when it has time; a server that only reads waits for that.
            wait_for_another_figure(server, None)
            read_study_page(page, server.url)
            read_analytics(page, server.url)
            read_trial_list(page, server.url)
            read_trial(page, server.url, 1, 1, "Validation accuracy")
            page.goto(f"{server.url}dashboard/studies/1/note")
            page.get_by_text("No verdict yet").first.wait_for()
            page.get_by_text(" of 500: ").first.wait_for()
            wait_for_another_figure(server, figure(server))
        assert told == []
        assert worker.poll() is None
    finally:
        worker.send_signal(signal.SIGINT)
        worker.wait(timeout=60)
    assert worker.returncode == 130 and "lock" not in log.read_text().lower()
    assert count_states(read_trials(load_study(open_existing(str(database)), "s")))["running"] == 0


def wait_for_another_figure(server, before):
    end = time.monotonic() + 120
    while figure(server) == before:
        assert time.monotonic() < end, "no figure was drawn"
        time.sleep(1)


def figure(server):
    """What the first figure shows; None where there is none yet."""
    found = json.loads(ask(server, "api/studies/1")[2])["plotly_graph_objects"]
    return next((f["graph_object"] for f in found if f["id"] == FIGURES[0]), None)


def wait_for_trials(database, worker, log, count):
    end = time.monotonic() + 120
    while log.read_text().count("trial ") < count:
        assert time.monotonic() < end and worker.poll() is None, log.read_text()
        time.sleep(0.5)
    assert database.exists()
