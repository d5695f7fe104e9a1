"""MedMNIST's files are believed by their MD5, and had by the package, or by hand with one line."""

import hashlib
import importlib
import types

import numpy as np
import pytest

from transfer.data.sources import medmnist as medmnist_source
from transfer.data.sources.medmnist import open_medmnist

URL = "https://example.org/files/toymnist.npz?download=1"


def toy_content(tmp_path):
    """A whole file of three classes as bytes."""
    images, labels = np.zeros((6, 28, 28), np.uint8), np.arange(6).reshape(6, 1) % 3
    splits = ("train", "val", "test")
    path = tmp_path / "toy.npz"
    np.savez(
        path, **{f"{s}_images": images for s in splits}, **{f"{s}_labels": labels for s in splits}
    )
    content = path.read_bytes()
    path.unlink()
    return content


class Package(types.SimpleNamespace):
    """A stand-in for the package: ``arrives`` is what a download writes, or what it raises."""

    def __init__(self, content):
        super().__init__(arrives=content, num_downloads=0, asked=None)
        md5 = hashlib.md5(content).hexdigest()
        toy = {
            "python_class": "ToyMNIST",
            "task": "multi-class",
            "label": {"0": "zero", "2": "two", "1": "one [x]"},
            "url": URL,
            "MD5": md5,
            "url_64": URL.replace(".npz", "_64.npz"),
            "MD5_64": md5,
        }
        self.INFO = {
            "toymnist": toy,
            "chestmnist": toy | {"task": "multi-label, binary-class"},
            "organmnist3d": toy,
        }

    def ToyMNIST(self, *, split, download, root, size):
        self.num_downloads += 1
        suffix = "" if size == 28 else f"_{size}"
        with open(f"{root}/toymnist{suffix}.npz", "wb") as file:
            if isinstance(self.arrives, bytes):
                file.write(self.arrives)
                return
            file.write(b"half of")
        try:
            raise self.arrives
        except BaseException:
            raise RuntimeError("\n An essay\n of many lines\n") from None


@pytest.fixture
def content(tmp_path):
    return toy_content(tmp_path)


@pytest.fixture
def package(monkeypatch, content):
    fake = Package(content)
    monkeypatch.setattr(medmnist_source, "_package", lambda: fake)
    return fake


@pytest.fixture
def root(tmp_path, monkeypatch):
    folder = tmp_path / "medmnist"
    monkeypatch.setenv("MEDMNIST_DIR", str(folder))
    return folder


def everything_in(folder):
    return sorted(path.name for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("text", "file", "name"),
    [
        ("medmnist:toymnist", "toymnist.npz", "toymnist"),
        ("medmnist:toymnist@28", "toymnist.npz", "toymnist"),
        ("medmnist:toymnist@64", "toymnist_64.npz", "toymnist_64"),
    ],
)
def test_a_file_that_is_there_is_used_and_one_that_is_not_downloaded(
    package, root, text, file, name
):
    source = open_medmnist(text)
    assert (source.text, source.name, source.kind) == (text, name, "medmnist")
    assert source.classes == ("zero", "one [x]", "two")
    assert source.counts()["test"] == {"zero": 2, "one [x]": 2, "two": 2}
    assert everything_in(root) == [file]
    assert open_medmnist(text).classes == source.classes
    assert package.num_downloads == 1


@pytest.mark.parametrize("arrives", [OSError("no network"), b"half of it"])
def test_offline_one_line_says_from_where_to_where(package, root, arrives):
    package.arrives = arrives
    with pytest.raises(ValueError) as error:
        open_medmnist("medmnist:toymnist")
    path = root / "toymnist.npz"
    assert str(error.value) == (
        f"{path} is not there and its download failed; get it from {URL} and put it at {path}"
    )
    assert everything_in(root) == []


def test_a_folder_that_cannot_be_made_is_told_like_a_failed_download(package, root):
    root.write_text("a file")
    with pytest.raises(ValueError, match="its download failed; get it from"):
        open_medmnist("medmnist:toymnist")


def test_an_interrupted_download_stays_an_interruption(package, root):
    package.arrives = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        open_medmnist("medmnist:toymnist")
    assert everything_in(root) == []


def test_a_file_with_another_md5_is_refused_and_left_there(package, root, content):
    root.mkdir()
    (root / "toymnist.npz").write_bytes(content + b"x")
    with pytest.raises(ValueError, match="is not the file that MedMNIST published") as error:
        open_medmnist("medmnist:toymnist")
    for part in (package.INFO["toymnist"]["MD5"], f"--data {root / 'toymnist.npz'}"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert (package.num_downloads, everything_in(root)) == (0, ["toymnist.npz"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("medmnist:", "Unknown MedMNIST set ''; choose from toymnist."),
        ("medmnist:nomnist", "Unknown MedMNIST set 'nomnist'; choose from toymnist."),
        ("medmnist:chestmnist", "can't be studied: it is multi-label, and a study needs one"),
        ("medmnist:organmnist3d", "can't be studied: it holds volumes (3-D)"),
        ("medmnist:toymnist@65", "Unknown size '65' of medmnist:toymnist; choose from 28, 64."),
        ("medmnist:toymnist@big", "Unknown size 'big'"),
    ],
)
def test_what_can_not_be_studied_is_refused_before_a_download(package, root, text, message):
    with pytest.raises(ValueError) as error:
        open_medmnist(text)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert package.num_downloads == 0


def test_without_the_package_one_line_says_how_to_install_it(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ValueError, match=r"pip install 'transfer-studies\[medmnist\]'$"):
        open_medmnist("medmnist:pneumoniamnist")


def test_the_real_table_names_sizes_tasks_and_labels_as_expected(root):
    pytest.importorskip("medmnist", reason="the extra medmnist is not installed")
    info = medmnist_source._info(medmnist_source._package().INFO, "pneumoniamnist")
    assert [info["label"][str(i)] for i in range(2)] == ["normal", "pneumonia"]
    assert medmnist_source._suffix(info, "pneumoniamnist", "224") == "_224"
    for name in ("chestmnist", "organmnist3d"):
        with pytest.raises(ValueError, match="can't be studied"):
            open_medmnist(f"medmnist:{name}")


def test_the_folder_is_the_packages_own_unless_another_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("MEDMNIST_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert medmnist_source.medmnist_folder() == tmp_path / ".medmnist"
    monkeypatch.setenv("MEDMNIST_DIR", "~/sets")
    assert medmnist_source.medmnist_folder() == tmp_path / "sets"
