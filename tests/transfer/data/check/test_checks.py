"""Whatever is planted in a set of images is found, and nothing is found where nothing was.

Images are phantoms written as files; each fault is planted in a copy of one clean folder.
"""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from slowly import slow

from transfer.data.check.check import check
from transfer.data.loading import load_data
from transfer.data.sources.open import open_source
from transfer.data.sources.phantom import class_names, parse_phantom, phantom_images

SPEC = parse_phantom("phantom:train=360,test=120,size=96")
FIRST, SECOND = class_names(SPEC)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    root = tmp_path_factory.mktemp("clean")
    for split in ("train", "test"):
        images_NHW, labels_N = phantom_images(SPEC, split)
        for i, (pixels, label) in enumerate(zip(images_NHW, labels_N, strict=True)):
            path = root / split / class_names(SPEC)[label] / f"{split}_{i:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, compress_level=1)
    return root


@pytest.fixture
def folder(clean, tmp_path):
    return Path(shutil.copytree(clean, tmp_path / "images"))


@pytest.fixture
def found(tmp_path):
    """Findings by kind."""

    def look(text, **given):
        source = open_source(str(text), group_pattern=given.pop("group_pattern", None))
        options = {"image_size": 32, "seed": 0, "skip_unreadable": True, **given}
        data = load_data(source, cache_dir=tmp_path / "cache", **options)
        return {finding.kind: finding for finding in check(data, source.passed_over)}

    return look


def some(folder, split, label=FIRST, number=0):
    return sorted((folder / split / label).iterdir())[number]


def pairs(finding):
    return [{image["name"] for image in images} for images in finding.images]


def test_nothing_is_found_in_a_clean_folder(folder, found):
    assert found(folder) == {}


@pytest.mark.parametrize("seed", [*range(4), *slow(range(4, 20))])
def test_nothing_is_found_in_a_clean_phantom(found, seed):
    assert found(f"phantom:seed={seed}", seed=seed) == {}


@pytest.mark.parametrize("change", ["bytes", "pixels", "jpeg"])
def test_a_training_image_in_the_test_split_is_found(folder, found, change):
    original = some(folder, "train")
    copy = folder / "test" / FIRST / {"jpeg": "copy.jpg"}.get(change, "copy.png")
    if change == "bytes":
        shutil.copy(original, copy)
    elif change == "pixels":
        Image.open(original).save(copy, compress_level=9)
        assert copy.read_bytes() != original.read_bytes()
    else:
        Image.open(original).save(copy, quality=60)
    kind = "near_duplicates_across_splits" if change == "jpeg" else "copies_across_splits"
    finding = found(folder)[kind]
    names = [{f"train/{FIRST}/{original.name}", f"test/{FIRST}/{copy.name}"}]
    assert pairs(finding) == names
    assert finding.level == ("warning" if change == "jpeg" else "error")
    if change == "jpeg":
        assert finding.values["same_picture"] == 1
    else:
        assert finding.values["byte_identical"] == (change == "bytes")
        assert finding.allowed_by == ("--drop-duplicates", "--allow-leakage")


def test_copies_within_a_split_are_told_apart_by_class(folder, found):
    original = some(folder, "train")
    shutil.copy(original, folder / "train" / FIRST / "again.png")
    shutil.copy(some(folder, "test"), folder / "test" / SECOND / "other.png")
    findings = found(folder)
    assert set(findings) == {"copies_within_split", "contradictory_labels"}
    assert findings["copies_within_split"].values == {"count": 1, "split": "train"}
    assert findings["contradictory_labels"].values == {"count": 1, "split": "test"}
    assert {finding.level for finding in findings.values()} == {"warning"}


def test_a_picture_saved_anew_within_a_split_is_found(folder, found):
    original = some(folder, "test")
    Image.open(original).save(folder / "test" / FIRST / "again.jpg", quality=80)
    finding = found(folder)["near_duplicates_within_split"]
    assert pairs(finding) == [{f"test/{FIRST}/{original.name}", f"test/{FIRST}/again.jpg"}]


def test_a_subject_in_both_splits_is_found(folder, found):
    for split, number in (("train", 0), ("train", 1), ("test", 0)):
        path = some(folder, split, number=number)
        path.rename(path.with_name(f"person7_{path.name}"))
    assert found(folder) == {}
    finding = found(folder, group_pattern=r"(person\d+)_")["groups_across_splits"]
    assert finding.values["groups"] == ["person7"] and len(finding.images[0]) == 3
    assert "reused across folders" in finding.text and finding.allowed_by == ("--allow-leakage",)


BOMB = io.BytesIO()
Image.new("1", (20_000, 20_000)).save(BOMB, "PNG")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "image file is truncated"),
        (b"", "empty file"),
        (b"no image at all", "not an image"),
        (BOMB.getvalue(), "implausibly many pixels"),
    ],
    ids=["truncated", "empty", "garbage", "bomb"],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_file_that_cannot_be_read_is_found_with_its_reason(
    folder, found, content, reason, split
):
    path = some(folder, split)
    path.write_bytes(path.read_bytes()[:-300] if content is None else content)
    finding = found(folder)["unreadable"]
    ((image,),) = finding.images
    assert image["name"] == f"{split}/{FIRST}/{path.name}" and image["split"] == split
    assert image["reason"].startswith(reason)
    assert finding.level == "error" and finding.allowed_by == ("--skip-unreadable",)


def test_every_unreadable_file_of_class_folders_is_found(clean, tmp_path, found):
    folder = Path(shutil.copytree(clean / "train", tmp_path / "images"))
    for label in (FIRST, SECOND):
        some(tmp_path, "images", label).write_bytes(b"")
    assert found(folder)["unreadable"].values["count"] == 2


def test_files_with_other_names_are_told(folder, found):
    some(folder, "train").rename(folder / "train" / FIRST / "scan.dcm")
    (folder / "test" / FIRST / "Thumbs.db").write_bytes(b"")
    Image.open(some(folder, "train", number=1)).save(folder / "train" / FIRST / "a.jpg", "PNG")
    some(folder, "train", number=2).unlink()
    findings = found(folder)
    assert [i["name"] for (i,) in findings["passed_over"].images] == [f"train/{FIRST}/scan.dcm"]
    assert [i["name"] for (i,) in findings["misnamed"].images] == [f"train/{FIRST}/a.jpg"]
    assert "(is PNG)" in findings["misnamed"].text


def change_class(folder, change):
    for path in (folder / "train" / SECOND).iterdir():
        change(path)


def brighter(path):
    pixels = np.asarray(Image.open(path)).astype(int) + 40
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


def larger(path):
    image = Image.open(path)
    image.resize((image.width, image.height + 8)).save(path)


def coloured(path):
    image = Image.open(path).convert("RGB")
    image.putpixel((0, 0), (255, 0, 0))
    image.save(path)


@pytest.mark.parametrize(
    ("change", "family", "by"),
    [
        (brighter, "brightness", "brightness"),
        (larger, "size", "height"),
        (coloured, "kind of file", "mode RGB"),
    ],
)
def test_a_class_that_can_be_told_without_looking_is_named(folder, found, change, family, by):
    change_class(folder, change)
    finding = found(folder)["shortcut"]
    assert finding.values["class"] == SECOND and finding.values["family"] == family
    assert finding.values["auroc"] > 0.85
    assert f"class '{SECOND}' can be told by" in finding.text
    assert by in finding.text or family == "size"


def test_test_images_of_another_size_are_told_and_their_brightness_is_not(folder, found):
    for path in (folder / "test").rglob("*.png"):
        brighter(path)
    assert found(folder) == {}
    for path in (folder / "test").rglob("*.png"):
        larger(path)
    finding = found(folder)["split_differs"]
    assert finding.values["split"] == "test" and "brightness" not in finding.text


def test_another_share_of_a_class_is_told(folder, found):
    for path in sorted((folder / "test" / FIRST).iterdir())[20:]:
        path.unlink()
    finding = found(folder)["class_balance"]
    assert finding.values["split"] == "test"
    assert finding.values["shares"] == [pytest.approx(0.5), pytest.approx(0.25)]


def test_few_images_are_told_with_the_width_of_the_interval(clean, tmp_path, found):
    findings = found("phantom:train=60,test=70,size=32")
    assert findings["few_images"].values["split"] == "val"
    assert "points wide" in findings["few_images"].text
    assert min(findings["rare_class"].values["counts"].values()) < 10


def test_errors_come_first(folder, found):
    shutil.copy(some(folder, "train"), folder / "test" / FIRST / "copy.png")
    shutil.copy(some(folder, "train"), folder / "train" / FIRST / "again.png")
    assert [finding.level for finding in found(folder).values()] == ["error", "warning"]


def test_what_is_in_no_class_is_told(folder, found):
    shutil.copy(some(folder, "train"), folder / "loose.png")
    shutil.copy(some(folder, "train"), folder / "train" / "loose.png")
    (folder / "extra").mkdir()
    assert [i["name"] for (i,) in found(folder)["passed_over"].images] == [
        "extra/",
        "loose.png",
        "train/loose.png",
    ]


def test_links_that_lead_nowhere_cannot_be_read_and_linked_folders_are_looked_into(folder, found):
    (folder / "train" / FIRST / "gone.png").symlink_to("/nowhere.png")
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(some(folder, "test"), elsewhere / "copy.png")
    (folder / "train" / FIRST / "more").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder / "train" / FIRST)
    findings = found(folder)
    ((image,),) = findings["unreadable"].images
    assert image["name"] == f"train/{FIRST}/gone.png" and "No such file" in image["reason"]
    (copies,) = pairs(findings["copies_across_splits"])
    assert f"train/{FIRST}/more/copy.png" in copies


def test_behind_a_drop_of_copies_what_is_left_is_looked_at(folder, found):
    for path in (folder / "test").rglob("*.png"):
        path.unlink()
    for label in (FIRST, SECOND):
        for number in range(40):
            shutil.copy(some(folder, "train", label, number), folder / "test" / label)
    rng = np.random.default_rng(0)
    for label in (FIRST, SECOND):
        for number in range(5):
            image = Image.fromarray(rng.integers(0, 256, (96, 96), dtype=np.uint8))
            image.save(folder / "test" / label / f"noise{number}.png")
    assert "few_images" not in found(folder)
    findings = found(folder, drop_duplicates=True)
    assert findings["copies_across_splits"].values["count"] == 80
    assert findings["few_images"].values["count"] == 10
    assert findings["rare_class"].values["counts"] == {FIRST: 5, SECOND: 5}


def test_a_name_that_stands_for_no_format_is_not_misnamed(folder, found):
    lines = ["path,label,split"]
    for split in ("train", "test"):
        for path in sorted((folder / split).rglob("*.png")):
            path.rename(path.with_suffix(""))
            lines.append(f"{path.relative_to(folder).with_suffix('')},{path.parent.name},{split}")
    (folder / "list.csv").write_text("\n".join(lines))
    assert found(folder / "list.csv") == {}
