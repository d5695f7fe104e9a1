"""The final test evaluation: forecast first, then one recorded look, then everything measured."""

import json
import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import optuna
import pytest
from bundles import edit, run_study
from filelock import FileLock
from PIL import Image

from studies.bundle.bundle import read_bundle
from studies.bundle.export import ExportOptions, export_study
from studies.bundle.reproduce import Places
from studies.cli.search import main
from studies.database.artifacts import (
    TEST_FEATURES,
    TEST_PREDICTIONS,
    TEST_THUMBNAILS,
    read_arrays,
)
from studies.database.ledger import openings
from studies.database.storage import load_study, open_existing, open_storage
from studies.database.study import read_confirm, write_confirm
from studies.database.trials import read_trials
from studies.errors import UserError
from studies.evaluation import evaluate as final_test
from studies.evaluation import images as opened
from studies.evaluation.evaluate import EvaluateOptions, evaluate_bundle
from studies.results.choice import CONFIRM
from studies.results.evaluation import predictive_sentence
from studies.signals import Interrupted, StopSignals
from studies.statistics.calibration import find_calibration, probabilities
from studies.statistics.metrics import METRICS
from studies.terminal.progress import LineProgress
from transfer.data.sources.phantom import parse_phantom, phantom_images
from transfer.data.unsealing import unsealed

DATA = "phantom:train=60,test=20,size=32"
STRATEGIES = ("feature_extraction", "fine_tuning")


def places(home):
    return Places(cache_dir=home / "cache")


def export(home, out, **given):
    options = ExportOptions(
        storage=str(home / "studies.db"), out=out, places=places(home), **given
    )
    export_study(options, LineProgress())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    run_study(home)
    for strategy in STRATEGIES:
        export(home, home / strategy, strategy=strategy)
    return home


@pytest.fixture
def home(made, tmp_path):
    """A copy of its own: the ledger remembers."""
    return shutil.copytree(made, tmp_path / "home")


def options(home, bundle="fine_tuning", **given):
    storage = str(home / "studies.db")
    return EvaluateOptions(bundle=home / bundle, storage=storage, places=places(home), **given)


def evaluate(home, bundle="fine_tuning", **given):
    return evaluate_with(options(home, bundle, **given))


def evaluate_with(given):
    with StopSignals() as signals:
        return evaluate_bundle(given, LineProgress(), signals)


def ledger(home, bundle="fine_tuning"):
    bundle = read_bundle(home / bundle).config
    return openings(open_existing(str(home / "studies.db")), bundle.data.test_fingerprint)


@pytest.fixture(scope="module")
def evaluated(made, tmp_path_factory):
    home = shutil.copytree(made, tmp_path_factory.mktemp("once") / "home")
    before = {path for path in (home / "cache").rglob("*") if path.is_file()}
    found = evaluate(home, prevalence=0.1)
    after = {path for path in (home / "cache").rglob("*") if path.is_file()}
    return home, found, after - before


@pytest.fixture
def arrays(evaluated):
    home, found, _ = evaluated
    storage = open_existing(str(home / "studies.db"))
    return {n: read_arrays(storage, i, n) for n, i in found.result["artifacts"].items()}


def test_json_has_what_was_promised(evaluated):
    _, found, _ = evaluated
    told = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert told["n"] == 20 and told["opening"] == 1
    names = {"accuracy", "balanced_accuracy", "auroc", "f1", "brier", "recall@NORMAL"}
    assert names <= set(told["metrics"])
    assert all(set(each) == {"value", "low", "high"} for each in told["metrics"].values())
    assert {"value", "low", "high"} <= set(told["predicted"])
    assert set(told["by_strategy"]) == set(STRATEGIES) == set(told["predicted"]["by_strategy"])
    assert {row["control"] for row in told["controls"]} >= {"majority", "knn"}
    assert {"value", "low", "high", "p", "verdict"} <= set(told["difference"])
    for interval in told["metrics"].values():
        assert interval["low"] <= interval["value"] <= interval["high"]


def test_the_numbers_follow_from_the_predictions_that_are_stored(evaluated, arrays):
    home, found, _ = evaluated
    stored, bundle = arrays[TEST_PREDICTIONS], read_bundle(home / "fine_tuning")
    labels_N = stored["labels_N"]
    given_NC, plain_NC = (
        bundle.probabilities(stored["bundle_NC"]),
        probabilities(stored["bundle_NC"], 1.0),
    )
    for name, metric in METRICS.items():
        value = metric(labels_N, given_NC if name in ("loss", "brier") else plain_NC)
        assert found.result["metrics"][name]["value"] == pytest.approx(value)
    called_N = bundle.called(given_NC)
    at_threshold = found.result["at_threshold"]["metrics"]["accuracy"]["value"]
    assert at_threshold == (called_N == labels_N).mean()
    told = found.result["at_threshold"]["predictive_values"]
    ill, healthy = ((called_N == labels_N)[labels_N == label].mean() for label in (1, 0))
    of_ill = 0.1 * ill / (0.1 * ill + 0.9 * (1 - healthy))
    assert (told["prevalence"], told["of"]) == (0.1, bundle.classes[1])
    assert told["values"][bundle.classes[1]]["value"] == pytest.approx(of_ill)
    assert f"Where 0.1 of all images are {bundle.classes[1]}" in predictive_sentence(found.result)
    means = {}
    for name in STRATEGIES:
        values = [(row.argmax(axis=1) == labels_N).mean() for row in stored[f"{name}_SNC"]]
        means[name] = np.mean(values)
        told = found.result["by_strategy"][name]
        assert told["metrics"]["accuracy"]["value"] == pytest.approx(means[name])
        assert told["seeds"] == [1, 2] and len(values) == 2
    difference = means["fine_tuning"] - means["feature_extraction"]
    assert found.result["difference"]["value"] == pytest.approx(difference)


def test_labels_and_images_are_those_of_the_test_split(evaluated, arrays):
    images_NHW, labels_N = phantom_images(parse_phantom(DATA), "test")
    assert sorted(arrays[TEST_PREDICTIONS]["labels_N"]) == sorted(labels_N)
    thumbnails_NHWC = arrays[TEST_THUMBNAILS]["images_NHWC"]
    assert thumbnails_NHWC.dtype == np.uint8 and thumbnails_NHWC.shape == (20, 32, 32, 1)
    assert {i.tobytes() for i in thumbnails_NHWC[..., 0]} == {i.tobytes() for i in images_NHW}


def test_the_first_seed_of_its_strategy_is_the_bundle(evaluated, arrays):
    stored = arrays[TEST_PREDICTIONS]
    assert np.abs(stored["fine_tuning_SNC"][0] - stored["bundle_NC"]).max() < 1e-3
    assert np.abs(stored["fine_tuning_SNC"][1] - stored["bundle_NC"]).max() > 1e-3


def test_each_seed_has_its_own_calibration(evaluated, arrays):
    home, found, _ = evaluated
    storage = open_existing(str(home / "studies.db"))
    stored, losses = arrays[TEST_PREDICTIONS], []
    runs = {
        r.params["seed"]: r
        for r in read_trials(load_study(storage, f"s/{CONFIRM}"))
        if r.strategy == "feature_extraction"
    }
    for seed, logits_NC in zip([1, 2], stored["feature_extraction_SNC"], strict=True):
        val = read_arrays(storage, runs[seed].predictions, "predictions")
        best_NC = val["logits_ENC"][runs[seed].best_epoch - 1]
        given_NC = find_calibration(best_NC, val["labels_N"]).probabilities(logits_NC)
        losses.append(METRICS["loss"](stored["labels_N"], given_NC))
    told = found.result["by_strategy"]["feature_extraction"]["metrics"]["loss"]["value"]
    assert told == pytest.approx(np.mean(losses))


def test_controls_are_fitted_to_training_images_and_asked_once(evaluated, arrays):
    _, found, _ = evaluated
    rows = {(r["control"], r["weights"]): r["metrics"] for r in found.result["controls"]}
    assert rows["majority", None]["accuracy"]["value"] == 0.5
    assert {r["control"] for r in found.result["controls"]} >= {"knn", "logistic_regression"}
    stored = arrays[TEST_PREDICTIONS]
    assert len(stored["controls_KNC"]) == len(stored["control_numbers"]) == len(rows)


def test_features_of_all_images_are_kept_to_explain_the_result(evaluated, arrays):
    features = arrays[TEST_FEATURES]
    assert features["backbones"].tolist() == ["resnet18"]
    assert features["data_0"].shape == (60, 512) and features["test_0"].shape == (20, 512)
    assert len(features["train_positions"]) + len(features["val_positions"]) == 60
    assert len(features["train_labels"]) == len(features["train_positions"])
    assert np.isfinite(features["test_0"]).all() and features["test_0"].std() > 0


def test_nothing_of_the_test_images_stays_in_the_cache(evaluated):
    assert not [path for path in evaluated[2] if path.suffix not in (".lock", ".used")]


def test_a_second_opening_is_refused_and_opens_nothing(home, monkeypatch):
    evaluate(home)
    monkeypatch.setattr(opened, "unsealed", None)
    for bundle in STRATEGIES:
        with pytest.raises(UserError, match=r"were opened once already.*--again --reason"):
            evaluate(home, bundle)
    assert len(ledger(home)) == 1


@pytest.mark.slow
def test_again_with_a_reason_is_counted_for_ever(home):
    first = evaluate(home)
    second = evaluate(home, again=True, reason="a second reader")
    assert [o.number for o in ledger(home)] == [1, 2]
    assert (second.opening.number, second.opening.reason) == (2, "a second reader")
    assert second.result["metrics"] == first.result["metrics"]
    assert "a second reader" in (home / "fine_tuning" / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize(
    "given", [{"again": True}, {"reason": "why"}, {"again": True, "reason": "  "}]
)
def test_again_and_its_reason_belong_together(home, given):
    with pytest.raises(UserError, match="belong together"):
        evaluate(home, **given)
    assert ledger(home) == []


def test_forecast_and_opening_are_written_before_the_seal_is_broken(home, monkeypatch, capsys):
    seen = []

    def look(*given):
        seen.append((ledger(home), capsys.readouterr().err))
        return unsealed(*given)

    monkeypatch.setattr(opened, "unsealed", look)
    found = evaluate(home)
    (((before,), told),) = seen
    assert not before.is_finished
    assert before.predicted == found.opening.predicted
    assert f"Forecast: accuracy {before.predicted['value']:.4f}" in told


@pytest.mark.slow
def test_an_opening_that_was_cut_off_goes_on_as_the_same_one(home, monkeypatch):
    def cut(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(opened, "unsealed", cut)
    with pytest.raises(KeyboardInterrupt):
        evaluate(home)
    monkeypatch.undo()
    (begun,) = ledger(home)
    with pytest.raises(UserError, match="without an end"):
        evaluate(home, "feature_extraction")
    assert evaluate(home).opening.id == begun.id
    (ended,) = ledger(home)
    assert ended.is_finished and ended.number == 1


@pytest.mark.slow
def test_another_study_of_the_same_test_images_finds_them_opened(home):
    evaluate(home)
    run_study(home, name="t", trials=2)
    export(home, home / "other", name="t")
    with pytest.raises(UserError, match="test images of study 't' were opened once"):
        evaluate(home, "other")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("data", "No data at"),
        ("other data", "other training images"),
        ("other test images", "test images or labels are not those"),
        ("weights", "not the one that the bundle comes from"),
        ("bundle", "was changed"),
        ("database", "No study database"),
    ],
)
def test_what_is_missing_or_wrong_is_found_before_the_opening(home, spoil, message):
    given = options(home)
    if spoil == "data":
        given = replace(given, places=replace(given.places, data=str(home / "nowhere")))
    elif spoil == "other data":
        given = replace(given, places=replace(given.places, data=f"{DATA},seed=5"))
    elif spoil == "other test images":
        given = replace(given, places=replace(given.places, data=f"{DATA.replace('20', '22')}"))
    elif spoil == "weights":
        found = {"kind": "random", "sha256": "random-7", "seed": 7}
        edit(given.bundle, lambda values: values["weights"].update(found))
    elif spoil == "bundle":
        edit(given.bundle, lambda values: values["calibration"].update(scale=9.0), signed=False)
    else:
        given = replace(given, storage=str(home / "none.db"))
    with pytest.raises((UserError, ValueError), match=message):
        evaluate_with(given)
    assert ledger(home, "feature_extraction") == []
    assert not (home / "none.db").exists()


@pytest.mark.slow
def test_one_strategy_alone_is_evaluated_without_a_difference(tmp_path):
    run_study(tmp_path, strategies=["feature_extraction"], trials=1)
    export(tmp_path, tmp_path / "fine_tuning")
    found = evaluate(tmp_path)
    assert found.result["difference"] is None
    assert set(found.result["by_strategy"]) == {"feature_extraction"}


@pytest.mark.slow
def test_seeds_with_validation_images_of_their_own_are_evaluated(tmp_path):
    run_study(tmp_path, strategies=["feature_extraction"], trials=1, resplit=True)
    export(tmp_path, tmp_path / "fine_tuning")
    found = evaluate(tmp_path)
    stored = read_arrays(
        open_existing(str(tmp_path / "studies.db")),
        found.result["artifacts"][TEST_PREDICTIONS],
        "predictions",
    )
    first_NC = stored["feature_extraction_SNC"][0]
    assert np.abs(first_NC - stored["bundle_NC"]).max() < 1e-3


@pytest.mark.slow
def test_a_model_that_was_refitted_is_evaluated_as_it_is(home):
    export(home, home / "refitted", strategy="feature_extraction", refit=True)
    found = evaluate(home, "refitted")
    assert found.result["n"] == 20


def test_a_card_that_cant_be_written_fails_nothing(home, capsys):
    (home / "fine_tuning" / "MODEL_CARD.md").unlink()
    evaluate(home)
    assert "could not be updated" in capsys.readouterr().err


def test_the_command_prints_every_part_and_json_only_json(home, capsys, monkeypatch):
    monkeypatch.setenv("STUDIES_CACHE_DIR", str(home / "cache"))
    base = ["evaluate", str(home / "fine_tuning"), "--storage", str(home / "studies.db")]
    assert main(base) == 0
    out, err = capsys.readouterr()
    for part in ("20 test images", "Controls: test accuracy", "opened once", "Forecast: accuracy"):
        assert part in out
    assert "forecast from the validation images first" in err
    assert main(base) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("Error: The test images of study 's' were opened once")
    assert main([*base, "--again", "--reason", "json", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["opening"] == 2 and told["difference"]["margin"] == 0.02
    assert len(told["difference"]["trials"]) == 2
    # It was declared with the study, before anything was confirmed.
    assert main([*base, "--margin", "0.05"]) == 2


@pytest.mark.slow
def test_results_are_stored_before_they_are_told(home, monkeypatch):
    def broken(*_):
        raise RuntimeError("no card")

    monkeypatch.setattr(final_test, "_write_card", broken)
    with pytest.raises(RuntimeError):
        evaluate(home)
    (entry,) = ledger(home)
    assert entry.is_finished


@pytest.mark.slow
def test_an_opening_that_was_cut_off_is_no_way_round_one_that_was_seen(home, monkeypatch):
    def cut(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(opened, "unsealed", cut)
    with pytest.raises(KeyboardInterrupt):
        evaluate(home)
    monkeypatch.undo()
    evaluate(home, "feature_extraction", again=True, reason="the first one crashed")
    with pytest.raises(UserError, match="were opened 2 times already"):
        evaluate(home)
    evaluate(home, again=True, reason="to see it all the same")
    assert [o.reason for o in ledger(home)] == [
        None,
        "the first one crashed",
        "to see it all the same",
    ]


@pytest.mark.slow
def test_an_opening_again_that_was_cut_off_goes_on_as_the_same_one(home, monkeypatch):
    evaluate(home)

    def cut(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(opened, "unsealed", cut)
    again = {"again": True, "reason": "a second reader"}
    with pytest.raises(KeyboardInterrupt):
        evaluate(home, **again)
    monkeypatch.undo()
    assert evaluate(home, **again).opening.number == 2
    assert [o.is_finished for o in ledger(home)] == [True, True]
    assert evaluate(home, **again).opening.number == 3


def test_another_forecast_than_the_one_that_was_written_is_another_evaluation(home, monkeypatch):
    def cut(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(opened, "unsealed", cut)
    with pytest.raises(KeyboardInterrupt):
        evaluate(home)
    monkeypatch.undo()
    monkeypatch.setattr(final_test, "_predicted", lambda *_: {"value": 0.5})
    with pytest.raises(UserError, match="without an end"):
        evaluate(home)


@pytest.mark.parametrize("spoil", ["device", "trained part", "model"])
def test_what_would_fail_later_is_found_while_the_seal_is_whole(home, spoil):
    given, message = options(home), "Device 'cuda:7' is not available"
    if spoil == "device":
        given = replace(given, places=replace(given.places, device="cuda:7"))
    else:
        storage = open_existing(str(home / "studies.db"))
        runs = read_trials(load_study(storage, f"s/{CONFIRM}"))
        kept = {
            (r.strategy, r.params["seed"]): storage.files / "artifacts" / r.weights for r in runs
        }
        damaged, other = kept["fine_tuning", 1], kept["fine_tuning", 2]
        damaged.write_bytes(other.read_bytes()[: 1000 if spoil == "trained part" else None])
        message = "are damaged" if spoil == "trained part" else "is not the training that it says"
    with pytest.raises((UserError, ValueError), match=message):
        evaluate_with(given)
    assert ledger(home) == []


@pytest.mark.slow
def test_a_study_made_anew_under_its_name_is_not_taken_for_it(home):
    storage = open_storage(str(home / "studies.db"))
    for name in ("s", "s/confirm", "s/controls"):
        optuna.delete_study(study_name=name, storage=storage.database)
    run_study(home, image_size=40)
    with pytest.raises(UserError, match="not the one that the bundle comes from"):
        evaluate(home)
    assert ledger(home) == []


@pytest.mark.slow
def test_the_same_images_under_other_class_names_are_known_again(tmp_path):
    for name, classes in (("a", ("NORMAL", "OPACITY")), ("b", ("fine", "ill"))):
        images = {}
        for split in ("train", "test"):
            images[split], labels = phantom_images(parse_phantom(DATA), split)
            for i, (image, label) in enumerate(zip(images[split], labels, strict=True)):
                path = tmp_path / name / split / classes[label] / f"{i:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)
        run_study(
            tmp_path,
            name=name,
            data=str(tmp_path / name),
            strategies=["feature_extraction"],
            trials=1,
        )
        export(tmp_path, tmp_path / f"{name}-bundle", name=name)
    evaluate(tmp_path, "a-bundle")
    with pytest.raises(UserError, match="in another test set: 20 with study 'a'"):
        evaluate(tmp_path, "b-bundle")
    found = evaluate(tmp_path, "b-bundle", again=True, reason="the names have changed")
    assert found.opening.reason == "the names have changed"


def test_a_choice_that_is_not_finished_is_not_evaluated(home):
    storage = open_storage(str(home / "studies.db"))
    confirm = load_study(storage, f"s/{CONFIRM}")
    write_confirm(confirm, {**read_confirm(confirm), "candidates": [0, 1, 2, 3]})
    with pytest.raises(UserError, match="Confirming is not finished"):
        evaluate(home)


def test_two_processes_at_once_make_one_opening(home):
    fingerprint = read_bundle(home / "fine_tuning").config.data.test_fingerprint
    lock = open_storage(str(home / "studies.db")).locks / f"evaluate-{fingerprint[:16]}.lock"
    with FileLock(lock), pytest.raises(UserError, match="Another process is evaluating"):
        evaluate(home)
    assert ledger(home) == []


def test_what_a_killed_evaluation_has_left_is_removed(home):
    left = home / "cache" / "opened" / "opened-left"
    (left / "activations").mkdir(parents=True)
    (left / "activations" / "rows.npy").write_bytes(b"test images")
    evaluate(home)
    assert list((home / "cache" / "opened").iterdir()) == []


@pytest.mark.slow
def test_a_loss_is_compared_and_held_against_its_forecast_before_calibration(tmp_path):
    run_study(tmp_path, trials=2, metric="loss")
    export(tmp_path, tmp_path / "fine_tuning")
    found = evaluate(tmp_path)
    stored = read_arrays(
        open_existing(str(tmp_path / "studies.db")),
        found.result["artifacts"][TEST_PREDICTIONS],
        "predictions",
    )
    plain_NC = probabilities(stored["bundle_NC"], 1.0)
    told = found.result["as_forecast"]["value"]
    assert told == pytest.approx(METRICS["loss"](stored["labels_N"], plain_NC))
    assert told != pytest.approx(found.result["metrics"]["loss"]["value"])
    tuned, extracted = (
        np.mean(
            [
                METRICS["loss"](stored["labels_N"], probabilities(logits_NC, 1.0))
                for logits_NC in stored[f"{strategy}_SNC"]
            ]
        )
        for strategy in ("fine_tuning", "feature_extraction")
    )
    assert found.result["difference"]["value"] == pytest.approx(tuned - extracted)


@pytest.mark.slow
def test_a_signal_ends_it_with_the_opening_recorded_and_nothing_left(home, monkeypatch, capsys):
    def stopped(*given):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal should have ended it")

    monkeypatch.setattr(opened, "unsealed", stopped)
    with pytest.raises(Interrupted):
        evaluate(home)
    monkeypatch.undo()
    assert "the same command goes on with it" in capsys.readouterr().err
    assert list((home / "cache" / "opened").iterdir()) == []
    (begun,) = ledger(home)
    assert evaluate(home).opening.id == begun.id
