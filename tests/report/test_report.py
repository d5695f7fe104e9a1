"""The report of a study: everything that is stored, and what is missing is said to be."""

import csv
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import optuna
import pytest
from bundles import run_study
from optuna_dashboard import get_note

import studies
from studies.cli.search import main
from studies.database.ledger import close_entry, open_entry, openings
from studies.database.storage import create_study, load_study, open_existing, open_storage
from studies.database.study import read_study, write_identity, write_totals
from studies.database.trials import read_trials, write_owner, write_reason
from studies.report.head import methods_paragraph
from studies.report.report import make_report, report_study, verdict_text
from studies.results.study import read_evidence

TASKS = ("task-a", "task-b", "task-c", "task-d", "task-e", "appendix")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study before and after its final evaluation."""
    sealed = tmp_path_factory.mktemp("sealed")
    run_study(sealed, trials=6)
    home = shutil.copytree(sealed, tmp_path_factory.mktemp("opened") / "home")
    given = {"storage": str(home / "studies.db"), "cache_dir": home / "cache"}
    bundle = studies.export_bundle("s", out=home / "b", **given)
    studies.evaluate_bundle(bundle.folder, **given)
    return sealed, home


@pytest.fixture(scope="module")
def folders(made, tmp_path_factory):
    """The reports of both, for tests that only read."""
    out = tmp_path_factory.mktemp("reports")
    for home, name in zip(made, ("sealed", "opened"), strict=True):
        report_study(
            "s", str(home / "studies.db"), out=out / name, figures=out / f"{name}_figures"
        )
    return out


@pytest.mark.parametrize("name", ["s", "s/confirm"])
def test_the_notes_of_the_dashboard_say_whether_the_test_images_were_opened(made, name):
    sealed, opened = (
        get_note(load_study(open_existing(str(home / "studies.db")), name)) for home in made
    )
    assert "are sealed" in sealed and "were opened" not in sealed
    assert "are sealed" not in opened and "on the test images" in opened


def read(folder):
    return Page((folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture
def opened(made, tmp_path):
    return shutil.copytree(made[1], tmp_path / "home")


def report_of(home, name="s"):
    return make_report(read_evidence(open_existing(str(home / "studies.db")), name))


class Page(HTMLParser):
    """Ids, links and text of a page."""

    def __init__(self, html):
        super().__init__()
        self.ids, self.links, self.text = set(), set(), ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids |= {given["id"]} if "id" in given else set()
        self.links |= {given["href"]} if "href" in given else set()

    def handle_data(self, data):
        self.text += data


def page_of(home, out, name="s"):
    written = report_study(name, str(home / "studies.db"), out=out)
    return Page((written.folder / "report.html").read_text(encoding="utf-8"))


def test_every_part_is_there_and_every_link_leads_somewhere(folders):
    page = read(folders / "opened")
    assert {"verdict", "data", "protocol", *TASKS, "points-lost", "points-missing"} <= page.ids
    assert page.links
    assert {link[1:] for link in page.links} <= page.ids
    figures = {i.removeprefix("figure-") for i in page.ids if i.startswith("figure-")}
    assert {"accuracy_cost", "learning_curves_fine_tuning", "strategies", "confusion"} <= figures
    assert "best_so_far" in figures
    assert {"roc", "calibration", "timeline", "unfrozen_layers"} <= figures


def test_files_are_written_beside_the_page(folders):
    out, figures = folders / "opened", folders / "opened_figures"
    tables = {path.stem for path in (out / "tables").iterdir()}
    assert {"backbones", "claims", "test_metrics", "trials", "confirm", "controls"} <= tables
    assert "test_calibration" in tables
    drawn = {path.stem for path in (out / "figures").iterdir()}
    assert {path.stem for path in figures.glob("*.png")} == drawn
    assert {path.stem for path in figures.glob("*.svg")} == drawn
    assert "figures/roc.svg" in (out / "report.md").read_text(encoding="utf-8")


def test_before_the_evaluation_task_e_is_sealed_with_a_forecast(folders):
    page = read(folders / "sealed")
    assert "Sealed: no test pixel or label has reached" in page.text
    assert "expected on 20 test images" in page.text
    assert "points-lost" not in page.ids and "figure-roc" not in page.ids
    assert set(TASKS) <= page.ids


def test_the_verdict_is_that_of_the_test_images_once_they_are_opened(made):
    sealed, opened = (report_of(home) for home in made)
    evidence = read_evidence(open_existing(str(made[1] / "studies.db")), "s")
    assert evidence.evaluation.result["difference"]["sentence"] in verdict_text(opened)
    assert "12 validation images" in verdict_text(sealed)
    assert "20 test images" in verdict_text(opened)


def claims_of(folder):
    with (folder / "tables" / "claims.csv").open(encoding="utf-8") as file:
        return {row["claim"]: row for row in csv.DictReader(file)}


def test_claims_are_judged_on_test_images_once_they_are_opened(folders):
    sealed, opened = (claims_of(folders / name) for name in ("sealed", "opened"))
    key = "can't learn task-specific features, and loses by it"
    assert (
        "fine-tuning over feature extraction (validation images)" in sealed[key]["measured here"]
    )
    assert sealed[key]["verdict"] == "not judged: these images chose it"
    assert sealed[key]["p (Holm)"] == "-"
    assert "fine-tuning over feature extraction (test images)" in opened[key]["measured here"]
    assert "not judged" not in opened[key]["verdict"] and float(opened[key]["p (Holm)"]) <= 1


def test_claims_that_nothing_was_trained_for_are_not_measured(folders):
    rows = claims_of(folders / "opened")
    assert rows["works with small data"]["verdict"] == "not measured"
    harm = rows["overfits small data"]["measured here"]
    assert "on validation images, loss of the last epoch minus that of an epoch chosen" in harm


def test_the_table_of_metrics_has_the_stored_numbers(made, folders):
    out = folders / "opened"
    evidence = read_evidence(open_existing(str(made[1] / "studies.db")), "s")
    result = evidence.evaluation.result
    with (out / "tables" / "test_metrics.csv").open(encoding="utf-8") as file:
        rows = {row["metric"]: row for row in csv.DictReader(file)}
    stored = result["by_strategy"]["fine_tuning"]["metrics"]["auroc"]
    for key, suffix in (("value", ""), ("low", " low"), ("high", " high")):
        assert float(rows["auroc"][f"fine-tuning, 2 seeds{suffix}"]) == stored[key]


def rewritten(home, change):
    """The last opening's result with a change, as a further opening."""
    storage = open_storage(str(home / "studies.db"))
    evidence = read_evidence(storage, "s")
    last = evidence.evaluation
    result = json.loads(json.dumps(last.result))
    change(result)
    entry = open_entry(
        storage,
        test_fingerprint=last.test_fingerprint,
        study="s",
        bundle=last.bundle,
        reason="another result",
        predicted=last.predicted,
    )
    close_entry(storage, entry, result)


def test_other_results_make_other_sentences(opened, folders, tmp_path):
    before = read(folders / "opened").text

    def better(result):
        sentence = "Fine-tuning is better than feature extraction by 9.9 points of accuracy."
        result["difference"] |= {"sentence": sentence, "value": 0.099, "low": 0.05, "high": 0.15}
        result["as_forecast"] |= {"value": 0.01}
        result["by_strategy"]["fine_tuning"]["metrics"]["accuracy"]["value"] = 0.123

    rewritten(opened, better)
    after = page_of(opened, tmp_path / "b").text
    for part in (
        "better than feature extraction by 9.9 points",
        "lies outside the forecast",
        "12.3 %",
    ):
        assert part in after and part not in before
    assert (
        "Opened 2 times: all but the first are validation." in after and "another result" in after
    )
    row = re.search(r"can't learn task-specific features, and loses by it(.*?)suit", after, re.S)
    assert "+9.9 points [+5.0, +15.0]" in row[1]
    # Whoever evaluates a second time has seen the images' result.
    assert "not judged" in row[1] and "holds here" not in row[1]
    assert "A result on these images was known before" in after
    assert "known before" not in before


def test_other_trials_make_other_sentences(opened, folders, tmp_path):
    before = read(folders / "opened").text
    storage = open_storage(str(opened / "studies.db"))
    study = load_study(storage, "s")
    write_totals(study, 50, None)
    after = page_of(opened, tmp_path / "b").text
    assert "The search is not finished: 6 of 50 trials." in after
    assert "not finished" not in before


def test_the_change_of_the_features_by_fine_tuning_is_told(made, folders):
    evidence = read_evidence(open_existing(str(made[0] / "studies.db")), "s")
    tuned, extracted = (evidence.candidate(n) for n in ("fine_tuning", "feature_extraction"))
    assert all(run.similarity is not None and run.similarity < 1 for run in tuned.runs)
    assert all(run.similarity is None for run in extracted.runs)
    mean = sum(run.similarity for run in tuned.runs) / len(tuned.runs)
    page = read(folders / "sealed")
    assert f"before and after (linear CKA): {mean:.2f}" in page.text


def test_nothing_is_logged_while_it_is_written(made, tmp_path, capfd):
    report_study("s", str(made[0] / "studies.db"), out=tmp_path / "r")
    assert capfd.readouterr().err == ""


def test_markup_in_names_stays_text(made, tmp_path):
    home = shutil.copytree(made[1], tmp_path / "home")
    storage = open_storage(str(home / "studies.db"))
    study = load_study(storage, "s")
    identity = read_study(study).identity
    evil = '<img src=x onerror="alert(1)">'
    identity["data"]["source"] = evil
    identity["data"]["classes"] = [evil, "$b$"]
    identity["data"]["counts"] = {
        split: dict(zip([evil, "$b$"], counts.values(), strict=True))
        for split, counts in identity["data"]["counts"].items()
    }
    write_identity(study, identity)
    written = report_study("s", str(home / "studies.db"), out=tmp_path / "r")
    html = (written.folder / "report.html").read_text(encoding="utf-8")
    assert "<img src=x" not in html and "&lt;img src=x" in html


@pytest.fixture
def empty(tmp_path):
    """A study whose trials have all failed."""
    storage = open_storage(str(tmp_path / "studies.db"))
    study = create_study(storage, "s", "accuracy")
    counts = {split: {"a": 10, "b": 10} for split in ("train", "val", "test")}
    check = {"warnings": [], "allowed": [], "left_out": {}}
    data = {"source": "x", "classes": ["a", "b"], "counts": counts, "check": check}
    space = {"name": "tiny", "depths": {}, "parameters": [SPACE_BACKBONE]}
    write_identity(
        study,
        {
            "settings": SETTINGS,
            "data": {**data, "fingerprint": "a" * 64, "test_fingerprint": "b" * 64},
            "space": space,
            "weights": {},
            "threads": 1,
            "opening": [],
        },
    )
    write_totals(study, 3, None)
    return tmp_path, storage, study


SPACE_BACKBONE = {"name": "backbone", "strategy": None, "choices": ["resnet18"], "log": False}
SETTINGS = {
    "metric": "accuracy",
    "epochs": 3,
    "patience": 5,
    "image_size": 32,
    "resize": "squeeze",
    "num_views": 1,
    "flip": "horizontal",
    "seed": 0,
    "weights": "random",
    "sampler": "tpe",
    "pruner": "median",
}


def test_a_study_without_trials_has_a_report_that_says_so(empty, tmp_path):
    page = page_of(empty[0], tmp_path / "r")
    assert "No verdict yet: no trial has ended." in page.text
    assert "0 of 3 trials" in page.text and set(TASKS) <= page.ids


def fail(storage, study, *reasons):
    for number, reason in enumerate(reasons):
        trial = study.ask()
        write_owner(trial, worker="host:1:ab", logical_number=number)
        trial.suggest_categorical("strategy", ["fine_tuning"])
        trial.suggest_categorical("backbone", ["resnet18"])
        write_reason(storage, study, number, reason)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert len(read_trials(study)) == len(reasons)


def test_a_study_whose_trials_failed_has_a_report_with_the_reasons(empty, tmp_path):
    home, storage, study = empty
    fail(storage, study, "out of memory <b>", "no image <b>", "out of memory <b>")
    page = page_of(home, tmp_path / "r")
    assert "none of 3 finished trials is complete (3 failed, 0 pruned)" in page.text
    assert page.text.count("out of memory <b>") == 2 and page.text.count("no image <b>") == 1
    assert "No complete trial of fine-tuning (3 finished)" in page.text


def test_a_study_that_equal_failures_stopped_says_how_to_go_on(empty, tmp_path):
    home, storage, study = empty
    fail(storage, study, *["no image <b>"] * 3)
    page = page_of(home, tmp_path / "r")
    assert "No verdict: 3 trials failed one after the other" in page.text
    assert "--retry-failed" in page.text and page.text.count("no image <b>") == 3


def test_one_strategy_alone_is_reported_without_a_comparison(tmp_path):
    run_study(tmp_path, strategies=["feature_extraction"], trials=1)
    page = page_of(tmp_path, tmp_path / "r")
    assert "No verdict: there is no complete trial of fine-tuning" in page.text
    assert "No complete trial of fine-tuning (0 finished)" in page.text
    assert "figure-learning_curves_feature_extraction" in page.ids


def test_a_study_that_was_not_confirmed_has_no_verdict_yet(tmp_path):
    run_study(tmp_path, trials=4, confirm=False)
    page = page_of(tmp_path, tmp_path / "r")
    assert "No verdict yet: the best trials were not trained again over seeds" in page.text
    assert "No forecast: nothing is confirmed over seeds yet." in page.text
    assert "Nothing was confirmed over seeds." in page.text


def test_artifacts_that_are_gone_leave_a_report_of_the_rest(opened, tmp_path):
    for path in (opened / "studies.files" / "artifacts").iterdir():
        path.unlink()
    page = page_of(opened, tmp_path / "r")
    assert set(TASKS) <= page.ids and "figure-confusion" in page.ids
    assert "figure-roc" not in page.ids


def test_the_methods_paragraph_has_all_numbers_and_its_citations(made):
    text = methods_paragraph(read_evidence(open_existing(str(made[1] / "studies.db")), "s"))
    for part in ("48 training, 12 validation and 20 test images at 32 x 32", "6 configurations"):
        assert part in text
    assert "2 other seeds (1, 2)" in text and "opened once" in text
    cited = {int(number) for number in re.findall(r"\[(\d)\]", text)}
    assert cited == set(range(1, len(cited) + 1))
    assert "{" not in text and "random weights" in text
    assert "pixels (squeezed to a square)." in text


def test_the_methods_paragraph_says_how_training_images_were_varied(made):
    evidence = read_evidence(open_existing(str(made[1] / "studies.db")), "s")
    settings = {**evidence.study.settings, "resize": "pad", "num_views": 4, "flip": "none"}
    identity = {**evidence.study.identity, "settings": settings}
    text = methods_paragraph(replace(evidence, study=replace(evidence.study, identity=identity)))
    assert "pixels (padded to a square), training images in 4 variants, none of them" in text


@pytest.mark.slow
def test_the_command_writes_it_and_says_where(made, tmp_path, capsys):
    base = ["report", "s", "--storage", str(made[1] / "studies.db"), "--out", str(tmp_path / "r")]
    assert main(base) == 0
    out, _ = capsys.readouterr()
    assert f"Report: {tmp_path / 'r' / 'report.html'}" in out and "test images" in out
    assert main([*base, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["study"] == "s" and told["html"].endswith("report.html")
    assert main(["report", "t", "--storage", str(made[1] / "studies.db")]) == 2
    assert "No study 't'" in capsys.readouterr().err
    assert main([*base[:-1], "/proc/nowhere"]) == 2
    assert "can't be written" in capsys.readouterr().err


def test_it_changes_nothing_in_the_database(made, tmp_path):
    storage = open_existing(str(made[1] / "studies.db"))
    before = (made[1] / "studies.db").read_bytes()
    page_of(made[1], tmp_path / "r")
    assert (made[1] / "studies.db").read_bytes() == before
    fingerprint = read_evidence(storage, "s").study.identity["data"]["test_fingerprint"]
    assert len(openings(storage, fingerprint)) == 1


def test_it_never_imports_torch(made, tmp_path):
    code = (
        "import sys; from pathlib import Path; from studies.report.report import report_study;"
        f"report_study('s', {str(made[1] / 'studies.db')!r}, out=Path({str(tmp_path / 'r')!r}));"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
