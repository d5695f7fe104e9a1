"""The same pictures give the same study, however they are packed; unusual ones run as well."""

import csv

import numpy as np
import pytest
from paths import SHARED
from PIL import Image
from slowly import slow

import studies
from studies.database.storage import load_study, open_existing
from studies.database.study import read_study
from transfer.data.sources.phantom import class_names, parse_phantom, phantom_images

SOURCE = "phantom:train=60,test=20,size=32"
SMALL = {
    "weights": "random",
    "backbones": ("resnet18",),
    "set": ("num_unfrozen_layers=1..2", "batch_size=16"),
    "image_size": 32,
    "trials": 5,
    "epochs": 2,
    "confirm": False,
}
DATA = SHARED / "data"


def drawn(split):
    spec = parse_phantom(SOURCE)
    images_NHW, labels_N = phantom_images(spec, split)
    names = class_names(spec)
    return images_NHW, labels_N, names


def write_folder(root, suffix=".png"):
    for split in ("train", "test"):
        images_NHW, labels_N, names = drawn(split)
        for i, (image, label) in enumerate(zip(images_NHW, labels_N, strict=True)):
            path = root / split / names[label] / f"{i:03d}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return root


def write_npy(root):
    root.mkdir()
    for split, prefix in (("train", ""), ("test", "test_")):
        images_NHW, labels_N, names = drawn(split)
        for label, name in enumerate(names):
            # Another order than the folder's.
            np.save(root / f"{prefix}{name}.npy", images_NHW[labels_N == label][::-1])
    return root


def write_manifest(path):
    folder = write_folder(path.parent / "bitmaps", suffix=".bmp")
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split"])
        for image in sorted(folder.rglob("*.bmp"), reverse=True):
            split, label = image.parts[-3:-1]
            rows.writerow([image.relative_to(path.parent), label, split])
    return path


def write_npz(path):
    arrays = {}
    for split in ("train", "test"):
        images_NHW, labels_N, _ = drawn(split)
        arrays |= {f"{split}_images": images_NHW, f"{split}_labels": labels_N[:, None]}
    np.savez(path, **arrays)
    return path


PACKINGS = {
    "npy": lambda folder: write_npy(folder / "arrays"),
    "manifest": lambda folder: write_manifest(folder / "images.csv"),
    "npz": lambda folder: write_npz(folder / "images.npz"),
    "phantom": lambda folder: SOURCE,
}


def table_of(folder, data, **given):
    """The study's table without times, as rows."""
    storage = f"sqlite:///{folder / 'studies.db'}"
    given = {**SMALL, "name": "s", "storage": storage, "cache_dir": folder / "cache", **given}
    studies.run(data=str(data), **given)
    table = studies.trials("s", storage)
    return table.drop(columns=["seconds"]).to_dict("records")


@pytest.fixture(scope="module")
def folder_table(tmp_path_factory):
    root = tmp_path_factory.mktemp("folder")
    return table_of(root, write_folder(root / "images"))


@pytest.mark.parametrize("packing", ["manifest", *slow(["npy", "npz", "phantom"])])
def test_the_same_pictures_in_another_packing_give_the_same_table(tmp_path, folder_table, packing):
    assert len(folder_table) == 5
    table = table_of(tmp_path, PACKINGS[packing](tmp_path))
    assert str(table) == str(folder_table)  # As text: a value that is missing equals itself.


def test_other_pictures_give_another_table(tmp_path, folder_table):
    assert str(table_of(tmp_path, f"{SOURCE},seed=1")) != str(folder_table)


def test_three_classes_run(tmp_path):
    rows = table_of(tmp_path, "phantom:train=60,test=30,size=32,classes=3", trials=3)
    assert {row["state"] for row in rows} == {"COMPLETE"}


def test_sixteen_bit_arrays_run_and_their_window_is_stored(tmp_path):
    folder = tmp_path / "arrays"
    folder.mkdir()
    images_NHW, labels_N, names = drawn("train")
    for label, name in enumerate(names):
        # A detector of 12 bits with an offset.
        deep = images_NHW[labels_N == label].astype(np.uint16) * 15 + 200
        np.save(folder / f"{name}.npy", deep)
    rows = table_of(tmp_path, folder, trials=3)
    assert {row["state"] for row in rows} == {"COMPLETE"}
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    identity = read_study(load_study(open_existing(storage), "s")).identity
    low, high = identity["data"]["window"]
    assert 200 <= low < high <= 200 + 15 * 255


@pytest.mark.slow
def test_a_study_of_groups_goes_on_with_its_groups_and_not_without(tmp_path):
    folder = tmp_path / "images"
    images_NHW, labels_N, names = drawn("train")
    for i, (image, label) in enumerate(zip(images_NHW, labels_N, strict=True)):
        path = folder / names[label] / f"person{i // 3}_{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    first = table_of(tmp_path, folder, group_pattern=r"person(\d+)", trials=2)
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    options = {**SMALL, "name": "s", "storage": storage, "cache_dir": tmp_path / "cache"}
    for key in ("backbones", "set"):
        del options[key]
    studies.run(**{**options, "trials": 3})
    assert len(studies.trials("s", storage)) == len(first) + 1
    with pytest.raises(ValueError, match="created with other settings: data"):
        studies.run(**options, data=str(folder), group_pattern=r"_(\d+)")


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="needs the shared data beside the checkout")
def test_the_x_rays_as_folder_manifest_and_arrays_give_the_same_table(tmp_path):
    xrays = DATA / "chest_xray"
    arrays = tmp_path / "arrays"
    arrays.mkdir()
    for split, prefix in (("train", ""), ("test", "test_")):
        for name in ("NORMAL", "PNEUMONIA"):
            pictures = [Image.open(p) for p in sorted((xrays / split / name).iterdir())]
            np.save(arrays / f"{prefix}{name}.npy", np.stack([np.asarray(p) for p in pictures]))
    tables = []
    for number, data in enumerate((xrays, xrays / "manifest.csv", arrays)):
        folder = tmp_path / str(number)
        folder.mkdir()
        tables.append(str(table_of(folder, data, trials=3)))
    assert tables[0] == tables[1] == tables[2]


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="needs the shared data beside the checkout")
def test_pneumoniamnist_runs_with_its_own_splits(tmp_path):
    (row,) = table_of(
        tmp_path,
        DATA / "pneumoniamnist.npz",
        trials=1,
        strategies=("feature_extraction",),
        allow_leakage=True,
    )
    # 389 of its 524 validation images are of the larger class.
    assert row["state"] == "COMPLETE" and row["value"] > 389 / 524
