"""Repeats and controls belong to one search, whatever its name; a failed one may be retried."""

import shutil
from functools import partial

import optuna
import pytest
import torch
from bundles import SPACE, run_study

import studies
from studies.bundle.export import find_chosen_run
from studies.cli.search import main
from studies.database.beside import beside, open_beside
from studies.database.storage import create_study, load_study, open_storage
from studies.database.study import read_study, write_search
from studies.database.trials import read_trials
from studies.errors import StudyFailedError, UserError
from studies.report.head import verdict
from studies.results.choice import CONFIRM
from studies.results.controls import CONTROLS_STUDY
from studies.results.study import read_evidence
from studies.search import worker as worker
from studies.search.objective import Objective
from studies.search.run import confirm_stored
from studies.settings import read_options
from studies.signals import StopSignals
from studies.terminal.progress import LineProgress
from transfer.training.train import train

SMALL = {"strategies": ["feature_extraction"], "trials": 1, "epochs": 1}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("made")
    run_study(home, **SMALL)
    return home


@pytest.fixture
def home(made, tmp_path):
    return shutil.copytree(made, tmp_path / "home")


@pytest.fixture
def storage(home):
    return open_storage(str(home / "studies.db"))


def names(storage):
    return set(optuna.get_all_study_names(storage.database))


def confirm(home):
    options = read_options(
        {"name": "s", "storage": str(home / "studies.db"), "cache_dir": home / "cache"}
    )
    with StopSignals() as signals:
        return confirm_stored(options, LineProgress(), signals)


@pytest.mark.parametrize(
    "changed",
    [
        {"data": "phantom:train=80,test=20,size=32"},
        {"space": "other.toml"},
    ],
    ids=["data", "space"],
)
def test_a_new_study_under_an_old_name_adopts_nothing_of_the_old_ones(home, storage, changed):
    """Whatever has changed: candidate number and seeds are the same in both."""
    (home / "other.toml").write_text(SPACE.replace("low = 1e-3", "low = 5e-3"))
    changed = {k: str(home / v) if k == "space" else v for k, v in changed.items()}
    old = read_trials(load_study(storage, f"s/{CONFIRM}"))
    optuna.delete_study(study_name="s", storage=storage.database)
    run_study(home, **(SMALL | changed))
    found = find_chosen_run(storage, "s", None)
    assert found.run.started > old[-1].ended
    trained = {key: found.run.config[key] for key in ("learning_rate", "batch_size")}
    wanted = found.records[found.candidate.number].params
    assert trained == {key: wanted[key] for key in trained}
    assert found.run.fingerprints == found.records[0].fingerprints
    controls = read_evidence(storage, "s").controls
    assert controls and all(run.started > old[-1].ended for run in controls)
    # Nothing is lost, and nothing of it is shown as the new one's.
    kept = read_trials(load_study(storage, f"s/{CONFIRM} of another study"))
    assert [run.value for run in kept] == [run.value for run in old]
    assert f"s/{CONTROLS_STUDY} of another study" in names(storage)


def test_what_is_set_aside_is_told_and_a_name_is_never_taken_twice(storage):
    said = []
    for search in ("one", "two", "three"):
        found = open_beside(storage, "t", CONFIRM, search, metric="accuracy", say=said.append)
        found.add_trial(optuna.create_trial(value=0.5))
    others = {"t/confirm of another study", "t/confirm of another study (2)"}
    assert others < names(storage)
    assert [line.rpartition(" now called ")[2] for line in said] == [
        "t/confirm of another study.",
        "t/confirm of another study (2).",
    ]
    again = open_beside(storage, "t", CONFIRM, "three", metric="accuracy", say=said.append)
    assert len(again.trials) == 1 and len(said) == 2


def test_one_that_a_killed_process_left_without_an_owner_is_taken(storage):
    create_study(storage, "t/confirm", "accuracy")
    open_beside(storage, "t", CONFIRM, "mine", metric="accuracy", say=pytest.fail)
    assert beside(storage, "t", CONFIRM, "mine") is not None


def test_repeats_of_a_study_older_than_ids_stay_its_own(home, storage):
    """Of the same version both have no id; a study with one takes nothing over."""
    study = create_study(storage, "t/confirm", "accuracy")
    study.add_trial(optuna.create_trial(value=0.5))
    assert beside(storage, "t", CONFIRM, None) is not None
    assert beside(storage, "t", CONFIRM, "mine") is None
    open_beside(storage, "t", CONFIRM, None, metric="accuracy", say=pytest.fail)


def test_export_and_report_do_not_see_repeats_and_controls_of_another(home, storage):
    mine = read_study(load_study(storage, "s")).search_id
    for purpose in (CONFIRM, CONTROLS_STUDY):
        write_search(load_study(storage, f"s/{purpose}"), "another")
    with pytest.raises(UserError, match="is not confirmed: run `python -m studies confirm s"):
        studies.export_bundle("s", storage=str(home / "studies.db"), out=home / "b")
    evidence = read_evidence(storage, "s")
    assert evidence.confirmed is None and list(evidence.controls) == []
    write_search(load_study(storage, f"s/{CONFIRM}"), mine)
    assert find_chosen_run(storage, "s", None).study.search_id == mine


def test_a_plain_run_confirms_as_many_candidates_as_before(home, storage):
    """--top is kept as --seeds is, and the study its id."""
    mine = read_study(load_study(storage, "s")).search_id
    run_study(home, **{**SMALL, "trials": 3}, top=2)
    runs = len(read_trials(load_study(storage, f"s/{CONFIRM}")))
    run_study(home, **{**SMALL, "trials": 3}, top=None, seeds=None)
    assert len(read_trials(load_study(storage, f"s/{CONFIRM}"))) == runs
    assert mine and read_study(load_study(storage, "s")).search_id == mine


def test_a_training_that_kills_its_device_ends_the_run_and_no_further_seed_is_spent(
    tmp_path, monkeypatch
):
    is_dead = []

    def dies(config, *given, **options):
        if config.seed == 1 or is_dead:
            is_dead.append(config.seed)
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return train(config, *given, **options)

    monkeypatch.setattr(worker, "Objective", partial(Objective, train=dies))
    with pytest.raises(StudyFailedError, match=r"left the device unusable .* Mend the cause"):
        run_study(tmp_path, **SMALL)
    assert is_dead == [1]
    storage = open_storage(f"sqlite:///{tmp_path / 'studies.db'}")
    (failed,) = read_trials(load_study(storage, f"s/{CONFIRM}"))
    assert failed.state == "FAIL"
    is_dead.clear()
    monkeypatch.setattr(worker, "Objective", Objective)
    (found,) = confirm(tmp_path).confirmed.candidates
    assert found.missing == []


def test_a_training_that_failed_is_done_again_with_its_seed_when_confirming(
    tmp_path, monkeypatch, capsys
):
    short_of_memory = {1}

    def fails_once(config, *given, **options):
        if config.seed in short_of_memory:
            raise torch.OutOfMemoryError
        return train(config, *given, **options)

    monkeypatch.setattr(worker, "Objective", partial(Objective, train=fails_once))
    url = run_study(tmp_path, **SMALL)
    storage = open_storage(url)
    with pytest.raises(UserError, match=r"failed \(out of memory\).*`python -m studies confirm s"):
        find_chosen_run(storage, "s", None)
    run_study(tmp_path, **SMALL)  # Only who asks for confirming again has it done again.
    assert len(read_trials(load_study(storage, f"s/{CONFIRM}"))) == 2
    short_of_memory.clear()
    (found,) = confirm(tmp_path).confirmed.candidates
    assert found.missing == [] and found.retried == {1: ["out of memory"]}
    assert find_chosen_run(storage, "s", None).run.params["seed"] == 1
    line = "seed 1 failed once (out of memory) and was trained again"
    given = ["--storage", url, "--cache-dir", str(tmp_path / "cache")]
    assert main(["confirm", "s", *given]) == 0
    assert line in " ".join(capsys.readouterr().out.split())
    assert len(read_trials(load_study(storage, f"s/{CONFIRM}"))) == 3  # Nothing was left to do.
    assert main(["export", "s", *given, "--out", str(tmp_path / "b")]) == 0
    assert line in capsys.readouterr().out
    assert line in str(verdict(read_evidence(storage, "s")))  # of the report and the dashboard
