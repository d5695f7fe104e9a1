"""Names that share a stem are told, with the pattern that fits; others never are."""

import re
import uuid
from dataclasses import replace

import numpy as np
import pytest
from test_leakage import random_split

from transfer.data.check.stems import find_stems, shared_stems

RNG = np.random.default_rng(0)
UUIDS = [str(uuid.UUID(int=int(RNG.integers(2**62)) * 2**64 + i)) for i in range(30)]
HASHES = [f"{RNG.integers(2**60):015x}" for _ in range(400)]
BASE62 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
RANDOM = ["".join(RNG.choice(list(BASE62), 6)) for _ in range(400)]


def repeated(template, subjects=20, images=3, extra=()):
    return [template.format(s=s, i=i) for s in range(subjects) for i in range(images)] + list(
        extra
    )


@pytest.mark.parametrize(
    ("names", "one", "subjects"),
    [
        (repeated("person{s}_bacteria_{i}.jpeg"), "person7", 20),
        (repeated("IM-{s:04}-0001-{i:04}.jpeg"), "IM-0007", 20),
        (repeated("patient_{s:02}_frame_{i:03}.png"), "patient_07", 20),
        (repeated("TCGA-{s:02}_tile{i}.png", subjects=4, images=50), "TCGA-03", 4),
        (repeated("TCGA-A1-A{s:02}SB_tile_{i}.png"), "TCGA-A1-A07SB", 20),
        (repeated("slide{s}_x{i}_y{i}.tif"), "slide7", 20),
        (repeated("{s}_{i}.png"), "7", 20),
        (repeated("sub-{s:03} {i}.png"), "sub-007", 20),
        ([f"scan{s}{side}.png" for s in range(20) for side in "LR"], "scan7", 20),
        ([f"P{s:03}_{side}.png" for s in range(20) for side in ("OD", "OS")], "P007", 20),
        ([f"{u}_{i}.png" for u in UUIDS for i in range(2)], UUIDS[7], 30),
        (repeated("img_{s:04}_aug{i}.png"), "img_0007", 20),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_stem_is_found_with_the_pattern_that_fits(names, one, subjects):
    found = find_stems([f"train/a/{name}" for name in names])
    assert found is not None
    assert len(set(found.stem_N)) == subjects and one in found.stem_N
    for name, stem in zip(names, found.stem_N, strict=True):
        assert re.search(found.pattern, name)[1] == stem and name.startswith(stem)


@pytest.mark.parametrize(
    "names",
    [
        [f"img_{i:04}.png" for i in range(200)],
        [f"{i}.png" for i in range(200)],
        [f"{i:05}.png" for i in range(200)],
        [f"NORMAL-{i}.png" for i in range(200)],
        [f"cat.{i}.jpg" for i in range(100)] + [f"dog.{i}.jpg" for i in range(100)],
        [f"{label}_{i:04}.png" for label in range(2) for i in range(100)],
        [f"fold{fold}_{i}.png" for fold in range(5) for i in range(50)],
        [f"train{i}_{i % 2}.png" for i in range(200)],
        [f"n{44 + i % 9}_{i}.JPEG" for i in range(200)],
        [f"scan_{2005 + i % 15}_{i}.png" for i in range(200)],
        [f"IMG_202001{1 + i % 28:02}_{i:06}.jpg" for i in range(200)],
        [f"IM-{i:04}-0001.jpeg" for i in range(200)],
        [f"person{i}_virus_{i + 7}.jpeg" for i in range(200)],
        [f"{u}.png" for u in UUIDS],
        [f"{h}.png" for h in HASHES],
        [f"{r}.png" for r in RANDOM],
        [f"cat-{word}-{i}.png" for word in ("big", "small", "red") for i in range(60)],
        ["a.png", "b.png"],
        [],
    ],
    ids=lambda names: names[0] if names else "none",
)
def test_names_of_one_image_each_are_left_alone(names):
    assert find_stems(names, 2) is None


def test_names_of_classes_are_no_subjects():
    names = [f"n{label:08}_{i}.JPEG" for label in range(12) for i in range(30)]
    assert find_stems(names, 12) is None


def test_names_of_two_kinds_are_in_one_pattern():
    names = repeated("person{s}_virus_{i}.jpeg") + [f"IM-{i:04}-0001.jpeg" for i in range(60)]
    found = find_stems(names)
    assert found.pattern == r"^(person\d+)[-_. ]" and found.stem_N.count(None) == 60
    several = repeated(
        "IM-{s:04}-0001-{i:04}.jpeg", 4, 2, [f"NORMAL2-IM-{i}-01.jpeg" for i in range(9)]
    )
    found = find_stems(names + several)
    assert found.pattern == r"^(person\d+|IM-\d+)[-_. ]" and found.num_shared >= 24


def test_the_order_of_names_does_not_matter():
    names = repeated("person{s}_virus_{i}.jpeg") + repeated("IM-{s:04}-{i:04}.jpeg")
    shuffled = list(np.random.default_rng(1).permutation(names))
    assert find_stems(names).pattern == find_stems(shuffled).pattern


def splits(**names):
    rng = np.random.default_rng(0)
    return {
        split: replace(random_split(rng, len(given)), names=tuple(given))
        for split, given in names.items()
    }


def test_the_finding_has_the_pattern_and_the_number_of_subjects():
    given = splits(
        train=repeated("a/person{s}_virus_{i}.jpeg"), test=[f"a/IM-{i}.jpeg" for i in range(9)]
    )
    (finding,) = shared_stems(given, 2)
    assert (finding.kind, finding.level) == ("shared_stems", "warning")
    assert finding.values["group_pattern"] == r"^(person\d+)[-_. ]"
    # An image of no stem is a subject of its own.
    assert finding.values["subjects"] == 29 and finding.values["count"] == 60
    assert r"--group-pattern '^(person\d+)[-_. ]'" in finding.remedy
    assert finding.values["subjects_across_splits"] == 0 and "CSV" not in finding.remedy


def test_one_stem_in_two_splits_is_told_with_the_two_ways_out():
    given = splits(
        train=repeated("a/person{s}_virus_{i}.jpeg"),
        test=repeated("b/person{s}_virus_{i}.jpeg", 2),
    )
    (finding,) = shared_stems(given, 2)
    assert finding.values["subjects_across_splits"] == 2
    assert "2 of them have images in two of the given splits (person0, person1)" in finding.text
    assert "column `group`" in finding.remedy and "--allow-leakage" in finding.remedy
