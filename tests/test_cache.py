"""The cache folder is found in an order; a file gets into it whole or not at all."""

import os

import platformdirs
import pytest

from transfer.cache import cache_folder, written_whole


@pytest.fixture
def places(tmp_path, monkeypatch):
    """The three places, none of which exists yet."""
    monkeypatch.setenv("STUDIES_CACHE_DIR", str(tmp_path / "environment"))
    monkeypatch.setattr(
        platformdirs, "user_cache_dir", lambda name: str(tmp_path / "platform" / name)
    )
    return tmp_path


def test_the_given_folder_comes_before_the_environments_and_this_before_the_platforms(
    places, monkeypatch
):
    assert cache_folder(places / "given") == places / "given"
    assert cache_folder() == places / "environment"
    monkeypatch.setenv("STUDIES_CACHE_DIR", "")
    assert cache_folder() == places / "platform" / "transfer-studies"
    monkeypatch.delenv("STUDIES_CACHE_DIR")
    assert cache_folder() == places / "platform" / "transfer-studies"


def test_the_folder_is_made_with_its_parents_and_may_be_there_already(tmp_path):
    assert cache_folder(tmp_path / "a" / "b").is_dir()
    assert cache_folder(tmp_path / "a" / "b").is_dir()


def test_a_read_only_folder_is_refused(tmp_path, monkeypatch):
    # Root may write everywhere, so the answer of the system is replaced.
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(ValueError) as error:
        cache_folder(tmp_path)
    assert str(error.value) == (
        f"Cache folder {tmp_path} is read-only; name another with --cache-dir."
    )


def test_a_folder_that_cannot_be_made_is_refused_with_the_reason(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError) as error:
        cache_folder(tmp_path / "file" / "cache")
    assert str(error.value) == (
        f"Cache folder {tmp_path / 'file' / 'cache'} can't be used (Not a directory); "
        "change --cache-dir."
    )


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with written_whole(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_temporary_file_has_the_suffix_and_the_folder_of_its_target(tmp_path):
    with written_whole(tmp_path / "file.safetensors") as temporary:
        assert temporary.suffix == ".safetensors"
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".")


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_and_the_old_file_stays_when_writing_fails(tmp_path, failure):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(failure), written_whole(path) as temporary:
        temporary.write_text("new")
        raise failure
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
