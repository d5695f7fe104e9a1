"""Notes and figures of a study: complete, up to date, never in the way of people or studies."""

import json
import shutil
import threading

import optuna
import pytest
from bundles import run_study
from dashboards import ask, detail, running
from filelock import FileLock
from optuna_dashboard import get_note, save_note

from studies.cli.search import main
from studies.dashboard import publish as publishing
from studies.dashboard.publish import Publisher, publish, publish_all
from studies.database.storage import load_study, open_existing, open_storage
from studies.database.study import write_totals
from studies.database.trials import best_trials, read_trials, write_owner
from studies.errors import UserError

FIGURES = {
    "metric-against-seconds",
    "unfrozen-layers-against-metric",
    "budget-spent-and-saved",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study with repeats and controls, as `run` has left it."""
    home = tmp_path_factory.mktemp("made")
    run_study(home, trials=6)
    return home


@pytest.fixture
def home(made, tmp_path):
    return shutil.copytree(made, tmp_path / "home")


@pytest.fixture
def storage(home):
    storage = open_storage(str(home / "studies.db"))
    publish(storage, "s")  # The commands in the notes name where the database is now.
    return storage


def trial_notes(storage, name):
    study = load_study(storage, name)
    return [get_note(optuna.trial.Trial(study, t._trial_id)) for t in study.get_trials()]


def system_attributes(storage, name="s"):
    study_id = storage.database.get_study_id_from_name(name)
    return storage.database.get_study_system_attrs(study_id)


def test_every_study_and_every_trial_has_a_note(storage):
    for name, title in (
        ("s", "# s\\: fine-tuning or fixed feature extractor?"),
        ("s/confirm", "# s/confirm\\: the best of each strategy over seeds"),
        ("s/controls", "# s/controls\\: what must be beaten"),
    ):
        assert get_note(load_study(storage, name)).startswith(title)
        notes = trial_notes(storage, name)
        assert notes and all(note.startswith("**") for note in notes)


def test_trials_have_their_course_and_predictions(home):
    with running(home / "studies.db") as server:
        found = [json.loads(ask(server, f"api/studies/{number}")[2]) for number in (1, 2, 3)]
    for study in found:
        for trial in study["trials"]:
            names = {artifact["filename"] for artifact in trial["artifacts"]}
            assert {"history.csv", "predictions.npz"} <= names


def test_repeats_and_the_best_of_a_strategy_have_pictures_and_not_every_trial(home):
    with running(home / "studies.db") as server:
        search, confirm = (json.loads(ask(server, f"api/studies/{n}")[2]) for n in (1, 2))

    def has_pictures(trial):
        names = {artifact["filename"] for artifact in trial["artifacts"]}
        return {"learning_curve.png", "confusion_matrix.png"} <= names

    assert all(map(has_pictures, confirm["trials"]))
    shown = {trial["number"]: has_pictures(trial) for trial in search["trials"]}
    ranked = best_trials(
        read_trials(load_study(open_existing(str(home / "studies.db")), "s")), "accuracy"
    )
    for name in ("feature_extraction", "fine_tuning"):
        mine = [trial for trial in ranked if trial.strategy == name]
        assert shown[mine[0].number]
        scores = [trial.score("accuracy") for trial in mine]
        assert not any(
            shown[trial.number]
            for trial in mine
            if any(
                other.number < trial.number and score > trial.score("accuracy")
                for other, score in zip(mine, scores, strict=True)
            )
        )


def test_figures_have_fixed_ids_and_can_be_read(home):
    with running(home / "studies.db") as server:
        found = detail(server)
    figures = {f["id"]: json.loads(f["graph_object"]) for f in found["plotly_graph_objects"]}
    assert set(figures) == FIGURES
    assert all(figure["data"] for figure in figures.values())


def test_to_publish_again_changes_nothing(storage):
    before = system_attributes(storage)
    publish(storage, "s")
    assert system_attributes(storage) == before


def test_a_new_trial_gets_its_note_and_the_note_of_the_study_follows(storage):
    study = load_study(storage, "s")
    write_totals(study, 9, None)
    trial = study.ask()
    write_owner(trial, worker="host:1:ab", logical_number=trial.number)
    publish(storage, "s")
    assert trial_notes(storage, "s")[-1] == ""
    assert "1 running" in get_note(study) and "6 of 9" in get_note(study)
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    publish(storage, "s")
    assert "**Failed**" in trial_notes(storage, "s")[-1]
    assert "7 of 9" in get_note(study) and "1 failed" in get_note(study)


def test_a_note_that_a_person_has_edited_stays(storage):
    study = load_study(storage, "s")
    mine = get_note(study).replace("Which is better", "What is better")
    assert mine != get_note(study) and len(mine) > 2045  # In pieces.
    save_note(study, mine)
    write_totals(study, 9, None)
    publish(storage, "s")
    assert get_note(study) == mine


def test_a_note_that_was_emptied_or_never_there_is_written(storage):
    study = load_study(storage, "s")
    before = get_note(study)
    save_note(study, "")
    publish(storage, "s")
    assert get_note(study) == before


def test_a_note_of_a_trial_that_a_person_has_written_stays(storage):
    study = load_study(storage, "s")
    trial = study.ask()
    save_note(trial, "mine")
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    publish(storage, "s")
    assert trial_notes(storage, "s")[-1] == "mine"


def test_a_note_that_is_renewed_keeps_its_version(storage):
    """Whoever is editing could not save: the dashboard refuses texts of an earlier version."""
    study = load_study(storage, "s")
    before, version = get_note(study), system_attributes(storage)["dashboard:note_ver"]
    write_totals(study, 9, None)
    publish(storage, "s")
    assert get_note(study) != before
    assert system_attributes(storage)["dashboard:note_ver"] == version


def test_who_is_editing_while_the_note_is_renewed_can_save(storage, home):
    study = load_study(storage, "s")
    with running(home / "studies.db") as server:
        opened = detail(server)["note"]["version"]
        write_totals(study, 9, None)
        publish(storage, "s")
        mine = {"version": opened + 1, "body": "mine"}
        assert ask(server, "api/studies/1/note", "PUT", mine)[0] == 204
        assert ask(server, "api/studies/1/note", "PUT", mine)[0] == 409  # It could be refused.
    publish(storage, "s")
    assert get_note(study) == "mine"


def test_a_note_that_was_saved_while_the_newer_one_was_made_stays_whole(storage, monkeypatch):
    study, mine = load_study(storage, "s"), "mine " * 1000

    def make(evidence):
        save_note(study, mine)
        return "another text"

    monkeypatch.setattr(publishing, "search_note", make)
    publish(storage, "s")
    assert get_note(study) == mine


def test_a_note_in_pieces_that_was_emptied_leaves_none_behind(storage):
    study = load_study(storage, "s")
    before = get_note(study)
    save_note(study, "mine " * 1000)
    for piece in range(3):
        storage.database.set_study_system_attr(1, f"dashboard:note_str:{piece}", "")
    publish(storage, "s")
    assert get_note(study) == before


@pytest.mark.parametrize("key", ["dashboard:note_ver", "dashboard:note_str:0"])
def test_a_note_that_was_cut_short_by_a_kill_is_completed(storage, key):
    study = load_study(storage, "s")
    before = get_note(study)
    with storage.database.engine.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM study_system_attributes WHERE key = '{key}'")
    assert get_note(study) == ""
    publish(storage, "s")
    assert get_note(study) == before


@pytest.mark.parametrize("emptied", [True, False])
def test_a_note_of_a_trial_that_was_emptied_or_cut_short_comes_again(storage, emptied):
    study = load_study(storage, "s")
    first = study.get_trials()[0]._trial_id
    before = trial_notes(storage, "s")
    if emptied:
        save_note(optuna.trial.Trial(study, first), "")
    else:
        with storage.database.engine.begin() as connection:
            connection.exec_driver_sql(
                f"DELETE FROM study_system_attributes WHERE key = 'dashboard:{first}:note_ver'"
            )
    assert trial_notes(storage, "s")[0] == ""
    publish(storage, "s")
    assert trial_notes(storage, "s") == before


def test_one_odd_trial_keeps_nothing_else_from_being_written(storage):
    """Somebody else's: complete, and without anything that a trial of ours has."""
    study = load_study(storage, "s")
    study.add_trial(optuna.trial.create_trial(value=0.5))
    killed = study.ask()
    study.tell(killed, state=optuna.trial.TrialState.FAIL)
    with storage.database.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM study_system_attributes WHERE key LIKE '%plot%'")
    failures = publish(storage, "s")
    assert [told.partition(": A")[0] for told in failures] == ["note of the study"]
    assert trial_notes(storage, "s")[-1].startswith("It ended before it had a configuration.")
    figures = [key for key in system_attributes(storage) if key.startswith("dashboard:plot")]
    assert len(figures) == len(FIGURES)


def test_the_dashboard_completes_a_study_that_has_no_notes_yet(home):
    storage = open_storage(str(home / "studies.db"))
    with storage.database.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM study_system_attributes WHERE key LIKE 'dash%'")
    assert get_note(load_study(storage, "s")) == ""
    with running(home / "studies.db") as server:
        found = detail(server)
    assert found["note"]["body"].startswith("# s")
    assert all(trial["note"]["body"] for trial in found["trials"])
    assert len(found["plotly_graph_objects"]) == len(FIGURES)


def test_reading_only_writes_no_note(home):
    storage = open_storage(str(home / "studies.db"))
    with storage.database.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM study_system_attributes WHERE key LIKE 'dash%'")
    with running(home / "studies.db", read_only=True) as server:
        assert detail(server)["note"]["body"] == ""
    assert get_note(load_study(storage, "s")) == ""


def test_a_study_that_cant_be_understood_is_told_and_the_dashboard_opens(home):
    storage, said = open_storage(str(home / "studies.db")), []
    study = optuna.create_study(storage=storage.database, study_name="odd")
    study.set_user_attr("identity", {"schema": 1})
    study.set_user_attr("totals", {"trials": 3, "timeout_seconds": None})
    with running(home / "studies.db", said=said) as server:
        assert detail(server)["note"]["body"].startswith("# s")
    assert said[0].startswith("Notes and figures of the dashboard are not up to date: ")


def test_a_study_of_another_program_is_left_alone(storage):
    optuna.create_study(storage=storage.database, study_name="foreign")
    said = []
    publish_all(storage, said.append)
    assert get_note(load_study(storage, "foreign")) == "" and said == []
    with pytest.raises(UserError, match="not made by transfer-studies"):
        publish(storage, "foreign")


def test_a_study_does_not_wait_for_a_process_that_publishes_and_stands_still(storage):
    write_totals(load_study(storage, "s"), 9, None)
    before = get_note(load_study(storage, "s"))
    with FileLock(storage.locks / "publish.lock"):
        assert publish(storage, "s", wait_seconds=0) == []
        assert publish(storage, "s", wait_seconds=0.2) == ["another process is at them"]
        assert get_note(load_study(storage, "s")) == before
    publish(storage, "s", wait_seconds=0)
    assert get_note(load_study(storage, "s")) != before


@pytest.mark.slow
def test_who_reads_meanwhile_gets_whole_figures_and_notes(storage, home):
    """What optuna-dashboard's own functions write in pieces is one value here."""
    study, stop, broken, seen = load_study(storage, "s"), threading.Event(), [], set()
    place = "dashboard:note_str:0"

    def read():
        other = open_storage(str(home / "studies.db"))
        while not stop.is_set():
            attributes = system_attributes(other)
            seen.add(attributes[place])
            for key, value in attributes.items():
                if key.startswith("dashboard:plot_data:"):
                    try:
                        json.loads(value)
                    except ValueError:
                        broken.append(key)

    reader = threading.Thread(target=read)
    reader.start()
    for total in range(20, 40):
        write_totals(study, total, None)
        publish(storage, "s")
    stop.set()
    reader.join()
    assert broken == [] and len(seen) > 1


def test_a_publisher_waits_before_it_publishes_again(storage, monkeypatch):
    times, clock = [], [100.0]

    def slow(*arguments, **given):
        times.append(clock[0])
        clock[0] += 1.0
        return []

    monkeypatch.setattr(publishing, "publish", slow)
    monkeypatch.setattr(publishing, "perf_counter", lambda: clock[0])
    publisher = Publisher(storage, "s", print)
    for _ in range(200):
        publisher.publish_if_due()
        clock[0] += 1.0
    # It took a second: no more often than in fifty.
    assert times == [100.0, 151.0, 202.0, 253.0]


def test_a_publisher_that_is_quick_still_leaves_seconds_between(storage, monkeypatch):
    times, clock = [], [100.0]
    monkeypatch.setattr(publishing, "publish", lambda *_, **__: times.append(clock[0]) or [])
    monkeypatch.setattr(publishing, "perf_counter", lambda: clock[0])
    publisher = Publisher(storage, "s", print)
    for _ in range(12):
        publisher.publish_if_due()
        clock[0] += 1.0
    assert times == [100.0, 105.0, 110.0]


def test_a_failure_is_told_once_and_ends_nothing(storage, monkeypatch):
    def fail(*arguments, **given):
        raise OSError("disk full")

    monkeypatch.setattr(publishing, "publish", fail)
    said = []
    publisher = Publisher(storage, "s", said.append)
    publisher.publish()
    publisher.publish()
    assert said == ["Notes and figures of the dashboard are not up to date: OSError: disk full"]


def test_of_many_failures_a_few_are_told(storage, monkeypatch):
    monkeypatch.setattr(publishing, "publish", lambda *_, **__: [f"note {n}" for n in range(9)])
    said = []
    Publisher(storage, "s", said.append).publish()
    assert said[0].endswith(": note 0; note 1; note 2; 6 more")


def test_a_run_whose_notes_fail_is_a_run_all_the_same(tmp_path, monkeypatch, capsys):
    def fail(*arguments, **given):
        raise RuntimeError("no notes today")

    monkeypatch.setattr(publishing, "publish", fail)
    (tmp_path / "cache").mkdir()
    code = main(
        [
            *("run", "--name", "s", "--data", "phantom:train=40,test=20,size=32"),
            *("--weights", "random", "--backbones", "resnet18", "--trials", "2"),
            *("--epochs", "2", "--no-confirm", "--no-report"),
            *("--storage", str(tmp_path / "studies.db"), "--cache-dir", str(tmp_path / "cache")),
        ]
    )
    assert code == 0 and "no notes today" in capsys.readouterr().err
