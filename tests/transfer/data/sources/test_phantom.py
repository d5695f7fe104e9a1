"""A phantom is known in every property: a knob changes what it names and nothing else.

Shapes: N images of H x W pixels.
"""

import numpy as np
import pytest

from transfer.data.sources.phantom import (
    KINDS,
    RANGES,
    PhantomSpec,
    class_names,
    parse_phantom,
    phantom_images,
)

SMALL = {"train": 60, "test": 60, "size": 32}


def drawn(split="train", **knobs):
    return phantom_images(PhantomSpec(**{**SMALL, **knobs}), split)


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def best_threshold_accuracy(score_N, labels_N):
    """Accuracy of the best rule `score < t is class 0`, or its opposite."""
    is_one_N = labels_N[np.argsort(score_N)] == 1
    ones_below = np.concatenate([[0], np.cumsum(is_one_N)])
    zeros_below = np.arange(len(labels_N) + 1) - ones_below
    right = zeros_below + (ones_below[-1] - ones_below)
    return max(right.max(), len(labels_N) - right.min()) / len(labels_N)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_same_spec_gives_the_same_bits_and_another_seed_other_images(split):
    assert same(drawn(split, seed=3), drawn(split, seed=3))
    first, second = drawn(split, seed=3)[0], drawn(split, seed=4)[0]
    assert not any(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("split", ["train", "test"])
def test_images_are_grey_bytes_of_the_asked_number_and_size(split):
    images_NHW, labels_N = drawn(split, train=12, test=12, size=40)
    assert images_NHW.shape == (12, 40, 40) and images_NHW.dtype == np.uint8
    assert labels_N.shape == (12,) and labels_N.dtype == np.int64


def test_no_image_is_in_both_splits_or_twice():
    images = [image.tobytes() for split in ("train", "test") for image in drawn(split)[0]]
    assert len(set(images)) == 120


@pytest.mark.parametrize(
    "knobs", [{"test": 30}, {"shift": 2.0}, {"test": 10, "shift": 3.0}], ids=str
)
def test_knobs_of_the_test_split_never_change_a_training_pixel_or_label(knobs):
    assert same(drawn("train"), drawn("train", **knobs))
    assert not same(drawn("test")[:1], drawn("test", **knobs)[:1])


@pytest.mark.parametrize("knobs", [{"train": 30}, {"label_noise": 0.4}], ids=str)
def test_knobs_of_the_training_split_never_change_the_test_split(knobs):
    assert same(drawn("test"), drawn("test", **knobs))
    assert not same(drawn("train"), drawn("train", **knobs))


def test_a_shift_changes_every_test_image_and_no_test_label():
    images, labels = drawn("test")
    shifted, shifted_labels = drawn("test", shift=1.0)
    assert np.array_equal(labels, shifted_labels)
    assert (images != shifted).any(axis=(1, 2)).all()


def test_a_shift_changes_normal_test_images_most():
    images, labels_N = drawn("test", size=64)
    change_N = np.abs(images - drawn("test", size=64, shift=2.0)[0].astype(float)).mean(
        axis=(1, 2)
    )
    assert change_N[labels_N == 0].mean() > 1.3 * change_N[labels_N != 0].mean()


@pytest.mark.parametrize("num_classes", [2, 3, 5])
@pytest.mark.parametrize("split", ["train", "test"])
def test_classes_are_balanced_however_many_images_are_taken(split, num_classes):
    _, labels_N = drawn(split, classes=num_classes, train=61, test=61)
    for n in range(num_classes, 62):
        counts = np.bincount(labels_N[:n], minlength=num_classes)
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_the_order_of_the_classes_is_shuffled(num_classes):
    _, labels_N = drawn(classes=num_classes)
    assert not np.array_equal(labels_N, np.sort(labels_N))
    assert not np.array_equal(labels_N[num_classes:], labels_N[:-num_classes])


def test_a_larger_split_begins_with_the_smaller():
    few, many = drawn(train=20), drawn(train=60)
    assert same(few, [part[:20] for part in many])


@pytest.mark.parametrize("label_noise", [0.0, 0.1, 0.25, 1.0])
@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_label_noise_moves_exactly_its_share_of_the_labels_and_no_pixel(label_noise, num_classes):
    images, clean = drawn(classes=num_classes)
    same_images, noisy = drawn(classes=num_classes, label_noise=label_noise)
    assert np.array_equal(images, same_images)
    assert (clean != noisy).sum() == round(label_noise * 60)
    assert set(noisy) <= set(range(num_classes))


def test_contrast_changes_images_with_opacities_and_leaves_normal_ones():
    images, labels = drawn(contrast=1.0)
    stronger, _ = drawn(contrast=2.0)
    changed = (images != stronger).any(axis=(1, 2))
    assert np.array_equal(changed, labels != 0)


def test_without_contrast_an_image_does_not_know_its_class():
    # More classes make other labels from the same streams: the images must stay what they were.
    two, five = drawn(contrast=0.0, classes=2), drawn(contrast=0.0, classes=5)
    assert not np.array_equal(two[1], five[1])
    assert np.array_equal(two[0], five[0])
    assert not np.array_equal(drawn(classes=2)[0], drawn(classes=5)[0])


def test_with_contrast_the_average_images_of_the_classes_differ_more_than_without():
    def distance(contrast):
        images_NHW, labels_N = drawn(train=300, contrast=contrast)
        normal, opacity = (images_NHW[labels_N == c].mean(axis=0) for c in (0, 1))
        return np.abs(normal - opacity).mean()

    assert distance(2.0) > 2 * distance(0.0)


@pytest.mark.parametrize(
    "statistic",
    [lambda x: x.mean(axis=(1, 2)), lambda x: x.std(axis=(1, 2))],
    ids=["mean", "standard deviation"],
)
def test_no_threshold_on_brightness_or_spread_tells_the_classes_apart(statistic):
    accuracies = []
    for seed in range(5):
        images_NHW, labels_N = drawn(train=200, seed=seed)
        accuracies.append(best_threshold_accuracy(statistic(images_NHW), labels_N))
    assert np.mean(accuracies) <= 0.65


@pytest.mark.parametrize("num_classes", [2, 5])
def test_opacities_leave_the_brightness_and_spread_of_an_image_as_they_were(num_classes):
    without, _ = drawn(contrast=0.0, classes=num_classes)
    strong, _ = drawn(contrast=2.0, classes=num_classes)
    for statistic in (np.mean, np.std):
        change_N = statistic(strong, axis=(1, 2)) - statistic(without, axis=(1, 2))
        assert np.abs(change_N).max() < 2.0  # grey values; clipping at 0 and 255 moves some


def test_the_best_threshold_is_the_best():
    score_N = np.array([0.1, 0.2, 0.3, 0.4])
    assert best_threshold_accuracy(score_N, np.array([0, 0, 1, 1])) == 1.0
    assert best_threshold_accuracy(score_N, np.array([1, 1, 0, 0])) == 1.0
    assert best_threshold_accuracy(score_N, np.array([0, 1, 0, 1])) == 0.75


def test_every_class_has_a_name_of_its_own():
    assert class_names(PhantomSpec(classes=2)) == ("NORMAL", "OPACITY")
    assert len(set(class_names(PhantomSpec(classes=5)))) == 5 == len(KINDS)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("phantom", PhantomSpec()),
        ("phantom:train=100", PhantomSpec(train=100)),
        ("phantom:train=100,shift=0.5", PhantomSpec(train=100, shift=0.5)),
        ("phantom: shift = 1 , classes = 3", PhantomSpec(shift=1.0, classes=3)),
        (
            "phantom:train=10,test=11,size=32,contrast=0,label_noise=1,shift=3,classes=5,seed=7",
            PhantomSpec(
                train=10,
                test=11,
                size=32,
                contrast=0.0,
                label_noise=1.0,
                shift=3.0,
                classes=5,
                seed=7,
            ),
        ),
    ],
)
def test_a_source_says_what_differs_from_the_usual_phantom(text, spec):
    assert parse_phantom(text) == spec


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("phantom:", "Phantom options are key=value, but got ''"),
        ("phantom:train", "Phantom options are key=value, but got 'train'"),
        ("phantom:train=10,", "Phantom options are key=value, but got ''"),
        ("phantom:tain=10", "Unknown phantom key 'tain'"),
        ("phantom:=10", "Unknown phantom key ''"),
        ("phantom:Train=10", "Unknown phantom key 'Train'"),
        ("phantom:train=10,train=20", "Phantom key 'train' is given again"),
        ("phantom:train=many", "train must be an integer, but got 'many'"),
        ("phantom:train=10.5", "train must be an integer, but got '10.5'"),
        ("phantom:train=", "train must be an integer, but got ''"),
        ("phantom:shift=much", "shift must be a number, but got 'much'"),
        (
            "phantom:shift=nan",
            "`0.0 <= shift <= 3.0` must hold for phantom data, but got shift=nan",
        ),
        ("phantom:contrast=inf", "but got contrast=inf"),
        ("phantom:train=9", "`10 <= train <= 20000` must hold for phantom data, but got train=9"),
        ("phantom:test=20001", "but got test=20001"),
        ("phantom:size=31", "`32 <= size <= 512` must hold"),
        ("phantom:label_noise=1.1", "`0.0 <= label_noise <= 1.0` must hold"),
        ("phantom:classes=1", "`2 <= classes <= 5` must hold"),
        ("phantom:classes=6", "but got classes=6"),
        ("phantom:seed=-1", "but got seed=-1"),
        ("phantoms:train=10", "Unknown phantom 'phantoms:train=10'"),
        ("phantom=3", "Unknown phantom 'phantom=3'"),
    ],
)
def test_a_malformed_source_is_one_line_with_the_key_and_the_law(text, said):
    with pytest.raises(ValueError) as error:
        parse_phantom(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    if not said.startswith("Unknown phantom 'phantom"):
        assert str(error.value).endswith(f"known keys: {', '.join(RANGES)}.")
