"""A study is deleted and renamed with all that belongs to it; the ledger of openings stays."""

import io
import json
import shutil

import optuna
import pytest
from bundles import run_study

import studies
from studies.bundle.config import read_config
from studies.cli.search import main
from studies.database.ledger import open_entry, openings
from studies.database.owners import at_work
from studies.database.storage import load_study, open_existing, open_storage
from studies.database.study import read_study
from studies.database.trials import read_trials, write_owner
from studies.database.upkeep import delete_study, find_belongings, rename_study
from studies.errors import UserError
from studies.evaluation.setup import find_finalists
from studies.results.study import read_evidence

FAMILY = {"s", "s/confirm", "s/controls"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("made")
    url = run_study(home, strategies=["feature_extraction"], trials=1, epochs=1)
    run_study(home, name="t", strategies=["feature_extraction"], trials=1, confirm=False)
    studies.export_bundle("s", storage=url, out=home / "b", cache_dir=home / "cache")
    return home


@pytest.fixture
def home(made, tmp_path):
    return shutil.copytree(made, tmp_path / "home")


@pytest.fixture
def database(home):
    return str(home / "studies.db")


@pytest.fixture
def storage(database):
    return open_storage(database)


def names(database):
    return set(optuna.get_all_study_names(open_existing(database).database))


def artifacts(home):
    return {path.name for path in (home / "studies.files" / "artifacts").iterdir()}


def opened(storage, name):
    """An opening of the study's test images, and their fingerprint."""
    record = read_study(load_study(storage, name))
    fingerprint = record.identity["data"]["test_fingerprint"]
    open_entry(
        storage,
        test_fingerprint=fingerprint,
        study=name,
        bundle="0" * 64,
        reason=None,
        predicted={"search": record.search_id},
    )
    return fingerprint


def test_delete_takes_repeats_controls_and_files_along_and_leaves_the_rest(
    home, database, storage
):
    fingerprint = opened(storage, "s")
    kept = {p.name for p in find_belongings(storage, "t").files}
    assert kept and kept < artifacts(home)
    gone = delete_study("s", database)
    assert set(gone.num_trials) == FAMILY and gone.num_trials["s/confirm"] == 2
    assert gone.num_bytes > 0 and gone.num_openings == 1
    assert names(database) == {"t"} and artifacts(home) == kept
    assert len(openings(open_existing(database), fingerprint)) == 1
    assert len(read_trials(load_study(open_existing(database), "t"))) == 1


def test_what_is_left_of_a_study_that_was_deleted_elsewhere_can_be_deleted(database, storage):
    optuna.delete_study(study_name="s", storage=storage.database)
    assert set(delete_study("s", database).num_trials) == FAMILY - {"s"}
    assert names(database) == {"t"}


def test_what_is_of_another_search_stays_and_can_be_deleted_by_its_own_name(database, storage):
    """As where the dashboard renamed a study and another one took its name."""
    theirs = "s/confirm of another study"
    optuna.copy_study(
        from_study_name="s/confirm",
        from_storage=storage.database,
        to_storage=storage.database,
        to_study_name=theirs,
    )
    load_study(storage, theirs).set_user_attr("search", "another")
    assert find_belongings(storage, "s").not_its_own == [theirs]
    rename_study("s", "u", database)
    assert theirs in names(database) and "u/confirm" in names(database)
    rename_study("u", "s", database)
    deleted = delete_study("s", database)
    assert set(deleted.num_trials) == FAMILY and theirs in " ".join(deleted.lines())
    assert names(database) == {"t", theirs}
    delete_study(theirs, database)
    assert names(database) == {"t"}


def test_a_file_that_another_study_has_too_stays(home, database, storage):
    """As after Optuna's own copying."""
    optuna.copy_study(
        from_study_name="s/confirm",
        from_storage=storage.database,
        to_storage=storage.database,
        to_study_name="copy",
    )
    delete_study("s", database)
    for run in read_trials(load_study(open_existing(database), "copy")):
        assert {run.weights, run.predictions} <= artifacts(home)


def test_no_file_outside_the_artifacts_is_deleted_whatever_the_database_names(
    home, database, storage
):
    victim = home / "studies.files" / "mine.txt"
    victim.write_text("mine")
    trial_id = load_study(storage, "s").ask()._trial_id
    storage.database.set_trial_system_attr(trial_id, "artifacts:../mine.txt", "{}")
    delete_study("s", database)
    assert victim.is_file()


def test_while_a_worker_is_at_it_nothing_is_deleted_or_renamed(database, storage):
    with at_work(storage, "s", "host:12:ab"):
        with pytest.raises(UserError, match=r"being worked on \(process host-12\); stop it"):
            delete_study("s", database)
        with pytest.raises(UserError, match="being worked on"):
            rename_study("s", "u", database)
    assert names(database) == FAMILY | {"t"}
    rename_study("s", "u", database)


def test_trials_on_other_hosts_are_told_and_hinder_nobody(database, storage):
    """Whoever died there can't be seen from here."""
    trial = load_study(storage, "s").ask()
    write_owner(trial, worker="elsewhere:1:ab", logical_number=1)
    found = find_belongings(storage, "s")
    assert found.running_elsewhere == ["trial 1 of s (elsewhere:1:ab)"]
    assert "elsewhere:1:ab" in " ".join(found.lines())
    delete_study("s", database)


def test_rename_takes_all_of_it_along_and_its_bundle_knows_it(home, database, storage):
    before = {name: read_trials(load_study(storage, name)) for name in FAMILY}
    fingerprint = opened(storage, "s")
    rename_study("s", "new name", database)
    after = open_storage(database)
    assert names(database) == {"t", "new name", "new name/confirm", "new name/controls"}
    for name, trials in before.items():
        assert read_trials(load_study(after, name.replace("s", "new name", 1))) == trials
    evidence = read_evidence(after, "new name")
    assert evidence.is_confirmed and evidence.controls
    assert openings(after, fingerprint)[0].is_of("new name", evidence.study.search_id)
    found = find_finalists(after, read_config(home / "b"))
    assert found.name == "new name" and found.candidates


def test_a_new_study_under_the_old_name_is_not_taken_for_the_bundles(home, database):
    rename_study("s", "u", database)
    run_study(home, strategies=["feature_extraction"], trials=1, epochs=1, confirm=False)
    assert find_finalists(open_storage(database), read_config(home / "b")).name == "u"
    delete_study("u", database)
    with pytest.raises(UserError, match="not the one that the bundle comes from"):
        find_finalists(open_storage(database), read_config(home / "b"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: delete_study("nothing", d), "No study 'nothing'"),
        (lambda d: rename_study("nothing", "u", d), "No study 'nothing'"),
        (lambda d: rename_study("s", "t", d), "There is 't' in .* already"),
        (lambda d: rename_study("t", "s", d), "There is 's' in .* already"),
        (lambda d: rename_study("s", "a/b", d), "a name has letters, digits"),
        (lambda d: delete_study("foreign", d), "not made by transfer-studies; it is left"),
        (lambda d: rename_study("foreign", "u", d), "not made by transfer-studies; it is left"),
        (lambda d: delete_study("s", d + "x"), "No study database"),
    ],
)
def test_what_can_not_be_done_is_refused_and_changes_nothing(database, storage, change, message):
    optuna.create_study(storage=storage.database, study_name="foreign").ask()
    with pytest.raises(UserError, match=message):
        change(database)
    assert names(database) == FAMILY | {"t", "foreign"}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1), ("", 1)])
def test_on_a_terminal_it_is_shown_and_asked_first(database, monkeypatch, capsys, answer, code):
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert main(["delete", "t", "--storage", database]) == code
    told = capsys.readouterr()
    assert "t (1 trial); " in told.err and " MB." in told.err
    assert ("Nothing was deleted." in told.err) == bool(code)
    assert ("t" in names(database)) == bool(code)


def test_without_a_terminal_it_wants_yes(database, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(["delete", "t", "--storage", database]) == 2
    told = capsys.readouterr()
    assert "there is nobody to ask here; give --yes" in told.err and told.out == ""
    assert main(["delete", "t", "--yes", "--json", "--storage", database]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["study"] == "t" and found["trials"] == {"t": 1} and found["bytes"] > 0
    assert names(database) == FAMILY


def test_the_command_renames_and_the_notes_name_the_new_one(database, capsys):
    assert main(["rename", "s", "u", "--storage", database]) == 0
    assert capsys.readouterr() == ("Study 's' is now 'u'.\n", "")
    storage = open_existing(database).database
    attributes = storage.get_study_system_attrs(storage.get_study_id_from_name("u"))
    assert "report u" in attributes["dashboard:note_str:0"]
    assert main(["rename", "u", "t", "--storage", database]) == 2
    assert main(["rename", "u", "v", "--json", "--storage", database]) == 0
    assert json.loads(capsys.readouterr().out)["renamed"] == "u"


def test_studies_of_an_older_version_hinder_nothing_and_can_be_renamed_and_deleted(
    home, database, storage
):
    study = load_study(storage, "t")
    study.set_user_attr("identity", {**study.user_attrs["identity"], "schema": 1})
    bundle = read_config(home / "b")
    origin = bundle.study.model_copy(update={"search_id": "another"})
    with pytest.raises(UserError, match="not the one that the bundle comes from"):
        find_finalists(storage, bundle.model_copy(update={"study": origin}))
    assert main(["rename", "t", "u", "--storage", database]) == 0
    assert main(["delete", "u", "--yes", "--storage", database]) == 0
    assert names(database) == FAMILY


def test_from_python_too(database):
    assert studies.rename_study("t", "u", storage=database).name == "t"
    assert studies.delete_study("u", storage=database).num_trials == {"u": 1}
