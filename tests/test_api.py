"""From Python: run, export, evaluate, predict in a row, and the table of trials."""

import pytest
from bundles import run_study, save_images

import studies


def test_the_four_steps_in_a_row(tmp_path):
    url = run_study(tmp_path, trials=2)
    # A folder is given as a Path or as text.
    given = {"storage": url, "cache_dir": str(tmp_path / "cache")}
    exported = studies.export_bundle("s", out=str(tmp_path / "b"), **given)
    assert exported.folder == tmp_path / "b"
    found = studies.evaluate_bundle(tmp_path / "b", cache_dir=tmp_path / "cache")
    assert found.result["n"] == 20 and found.opening.number == 1
    with pytest.raises(ValueError, match="opened once already"):
        studies.evaluate_bundle(str(tmp_path / "b"), cache_dir=tmp_path / "cache")
    paths = save_images(tmp_path / "pictures", 3)
    predictions = studies.predict_images(str(tmp_path / "b"), [str(tmp_path / "pictures")])
    assert [p.path for p in predictions] == paths
    assert all(sum(p.probabilities.values()) == pytest.approx(1) for p in predictions)
    assert len(studies.trials("s", url)) == 2


def test_an_option_that_is_not_there_is_an_error():
    with pytest.raises(TypeError, match="colour"):
        studies.export_bundle("s", colour="blue")
