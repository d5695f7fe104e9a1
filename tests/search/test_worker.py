"""What trainings of a study share: one owner, one memory of limits, settings but for the seed."""

from types import SimpleNamespace

from studies.search.worker import Worker
from studies.settings import StudyOptions, decide


def worker():
    settings = decide(StudyOptions(), name="s", stored={}, suggested={})
    prepared = SimpleNamespace(
        settings=settings,
        identity={"threads": 1, "weights": {"resnet18": "abc"}, "precision": {"resnet18": "bf16"}},
        data=SimpleNamespace(fingerprint="d", test_fingerprint="t"),
        device=SimpleNamespace(type="cpu"),
    )
    return Worker(
        storage=None,
        prepared=prepared,
        name="host:1:ab",
        progress=None,
        signals=None,
        activations="activations",
        publisher=None,
    )


def test_an_objective_of_the_search_has_the_studys_settings():
    mine = worker()
    objective = mine.objective("study")
    assert objective.settings == mine.prepared.settings and not objective.keep_weights
    assert objective.precision == {"resnet18": "bf16"}
    assert objective.provenance["worker"] == "host:1:ab"
    assert objective.provenance["fingerprints"]["test"] == "t"


def test_an_objective_of_another_seed_prunes_nothing_and_shares_the_rest():
    mine = worker()
    objective = mine.objective("study", seed=7, activations="others", keep_weights=True)
    assert (objective.settings.seed, objective.settings.pruner) == (7, "none")
    assert objective.settings.epochs == mine.prepared.settings.epochs
    assert (objective.activations, objective.keep_weights) == ("others", True)
    assert objective.limits is mine.objective("study").limits
