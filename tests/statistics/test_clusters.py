"""Groups of images are drawn whole, and count for what they are worth.

Shapes: S seeds, N images, G groups, C classes, B resamples.
"""

import numpy as np
import pytest
from scipy.stats import binom

from studies.statistics.clusters import find_clusters, images_worth, num_subjects, share_worth
from studies.statistics.intervals import (
    bootstrap_over_seeds,
    parts_of_groups,
    resampling_counts,
    stratified_bootstrap,
    wilson_interval,
)
from studies.statistics.metrics import METRICS
from studies.statistics.paired import difference_over_seeds


def said(labels_N, rng, num_seeds=3, groups_N=None):
    """Models (S, N, C); the images of a group are right or wrong together."""
    groups_N = np.arange(len(labels_N)) if groups_N is None else groups_N
    found = []
    for _ in range(num_seeds):
        is_right_N = (rng.random(groups_N.max() + 1) < 0.85)[groups_N]
        called_N = np.where(is_right_N, labels_N, 1 - labels_N)
        sure_N = rng.uniform(0.55, 0.95, len(labels_N))
        at_one_N = np.where(called_N == 1, sure_N, 1 - sure_N)
        found.append(np.stack([1 - at_one_N, at_one_N], axis=1))
    return np.stack(found)


@pytest.mark.parametrize("name", list(METRICS))
def test_groups_of_one_image_change_no_digit(name):
    labels_N = np.arange(60) % 2
    first, second = (said(labels_N, np.random.default_rng(i)) for i in range(2))
    alone_N = np.random.default_rng(5).permutation(60)
    metric, few = METRICS[name], {"num_resamples": 100}
    for groups_N in (None, alone_N):
        found = (
            stratified_bootstrap(metric, labels_N, first[0], groups_N=groups_N, **few),
            bootstrap_over_seeds(metric, labels_N, first, groups_N=groups_N, **few),
            difference_over_seeds(metric, labels_N, first, second, groups_N=groups_N, **few).p,
        )
        plain = (
            stratified_bootstrap(metric, labels_N, first[0], **few),
            bootstrap_over_seeds(metric, labels_N, first, **few),
            difference_over_seeds(metric, labels_N, first, second, **few).p,
        )
        assert found == plain


def test_an_image_is_drawn_as_often_as_its_group_and_one_group_of_a_class_less():
    labels_N = np.array([0, 0, 0, 1, 1, 1, 1, 0])
    groups_N = np.array([7, 7, 8, 3, 3, 5, 6, 9])
    counts_BN = resampling_counts(labels_N, 500, 0, groups_N)
    assert (counts_BN[:, 0] == counts_BN[:, 1]).all()
    assert (counts_BN[:, 3] == counts_BN[:, 4]).all()
    # Three groups in each class: two of them are drawn.
    assert (counts_BN[:, [0, 2, 7]].sum(axis=1) == 2).all()
    assert (counts_BN[:, [3, 5, 6]].sum(axis=1) == 2).all()


def test_groups_of_several_classes_are_a_stratum_of_their_own():
    labels_N = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    clusters = find_clusters(labels_N, np.array([0, 0, 1, 1, 2, 3, 4, 5]))
    assert clusters.stratum_G.tolist() == [2, 2, 0, 1, 0, 1]
    assert clusters.degrees_of_freedom == 3
    counts_BN = resampling_counts(labels_N, 300, 0, clusters.group_N)
    assert (counts_BN[:, [0, 2]].sum(axis=1) == 1).all()


def test_copies_of_images_tell_no_more_than_the_images():
    labels_N = np.arange(60) % 2
    once = said(labels_N, np.random.default_rng(0))
    groups_N = np.tile(np.arange(60), 5)
    five_times = np.tile(once, (1, 5, 1))
    for metric in (METRICS["accuracy"], METRICS["auroc"]):
        of_once = bootstrap_over_seeds(metric, labels_N, once)
        of_copies = bootstrap_over_seeds(
            metric, np.tile(labels_N, 5), five_times, groups_N=groups_N
        )
        width = of_once.high - of_once.low
        assert of_copies.value == pytest.approx(of_once.value)
        assert of_copies.high - of_copies.low == pytest.approx(width, rel=0.15)
        one = stratified_bootstrap(metric, np.tile(labels_N, 5), five_times[0])
        of_one = stratified_bootstrap(metric, labels_N, once[0])
        assert one.high - one.low < 0.6 * (of_one.high - of_one.low)


def test_the_difference_of_two_strategies_on_copies_is_no_surer():
    labels_N = np.arange(60) % 2
    first, second = (said(labels_N, np.random.default_rng(i)) for i in range(2))
    tiled = [np.tile(p_SNC, (1, 5, 1)) for p_SNC in (first, second)]
    found = difference_over_seeds(METRICS["accuracy"], labels_N, first, second)
    of_copies = difference_over_seeds(
        METRICS["accuracy"],
        np.tile(labels_N, 5),
        *tiled,
        groups_N=np.tile(np.arange(60), 5),
    )
    assert of_copies.high - of_copies.low == pytest.approx(found.high - found.low, rel=0.15)
    assert (of_copies.num_images, of_copies.num_subjects) == (300, 60)
    assert found.num_subjects is None


def test_images_are_worth_no_fewer_than_their_groups_and_no_more_than_themselves():
    clusters = find_clusters(np.zeros(40, np.int64), np.repeat(np.arange(10), 4))
    assert 29 < images_worth(clusters, 0.01, 0.01) <= 40
    assert images_worth(clusters, 0.001, 1.0) == 10
    assert images_worth(clusters, 0.01, 0.001) == 40
    # Without an error nobody knows that images of a group do not err together.
    assert images_worth(clusters, 0.0, 0.0) == 10


def test_a_share_of_images_of_few_subjects_is_that_of_its_subjects():
    groups_N = np.repeat(np.arange(20), 5)
    together_N = np.repeat(np.arange(20) < 16, 5).astype(float)
    worth, width = share_worth(together_N, groups_N)
    assert worth == pytest.approx(20, rel=0.1) and width > 1.96
    apart_N = (np.arange(100) % 5 < 4).astype(float)
    assert share_worth(apart_N, groups_N)[0] > 80
    assert share_worth(apart_N, None) is None
    assert share_worth(apart_N, np.arange(100)) is None


def test_perfect_predictions_for_few_subjects_prove_no_more_than_so_many_images():
    labels_N, groups_N = np.repeat([0, 1], 100), np.repeat(np.arange(20), 10)
    certain_NC = np.eye(2)[labels_N]
    found = stratified_bootstrap(METRICS["accuracy"], labels_N, certain_NC, groups_N=groups_N)
    assert found.low < wilson_interval(20, 20)[0] + 1e-9


def test_one_subject_of_each_class_gives_no_interval():
    labels_N = np.repeat([0, 1], 10)
    with pytest.raises(ValueError, match="2 or more subjects"):
        resampling_counts(labels_N, 10, 0, labels_N)


def test_groups_of_other_images_are_refused():
    with pytest.raises(ValueError, match="a group for each of 4 images"):
        find_clusters(np.arange(4), np.arange(3))


def test_subjects_are_counted_where_they_are_known():
    assert num_subjects(None) is None
    assert num_subjects(np.array([4, 4, 9])) == 2


def of_lone_subject(rng):
    """Twenty images of one ill subject, forty healthy ones; strategies err on whole subjects."""
    labels_N, groups_N = np.repeat([1, 0], [20, 40]), np.r_[np.zeros(20, int), 1 + np.arange(40)]
    ease_N = rng.normal(size=41)[groups_N]
    strategies = []
    for _ in range(2):
        latent_N = (ease_N + rng.normal(size=41)[groups_N]) / 2**0.5
        p_N = 1 / (1 + np.exp(-2 * (1.04 - latent_N)))
        right_NC = np.where(np.arange(2) == labels_N[:, None], p_N[:, None], 1 - p_N[:, None])
        strategies.append(np.stack([right_NC] * 3))
    return labels_N, groups_N, strategies


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "auroc", "loss"])
def test_a_class_of_one_subject_is_not_taken_as_known(name):
    """It is never drawn: a third of equal strategies were called different."""
    different = 0
    for seed in range(60):
        labels_N, groups_N, (first, second) = of_lone_subject(np.random.default_rng(seed))
        found = difference_over_seeds(
            METRICS[name], labels_N, first, second, groups_N=groups_N, num_resamples=200
        )
        different += found.verdict != "undecided"
    assert different <= binom.ppf(0.999, 60, 0.05)


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "loss"])
def test_a_class_of_one_subject_widens_the_interval_of_a_model_and_of_seeds(name):
    labels_N, groups_N, (said_SNC, _) = of_lone_subject(np.random.default_rng(0))
    of_two_N = np.where(groups_N == 0, np.arange(60) // 10 + 100, groups_N)
    for interval in (
        lambda groups: stratified_bootstrap(
            METRICS[name], labels_N, said_SNC[0], groups_N=groups, num_resamples=300
        ),
        lambda groups: bootstrap_over_seeds(
            METRICS[name], labels_N, said_SNC, groups_N=groups, num_resamples=300
        ),
    ):
        one, two = interval(groups_N), interval(of_two_N)
        assert one.high - one.low > two.high - two.low


def test_one_subject_of_two_classes_is_drawn_with_the_class_of_most_of_its_images():
    labels_N = np.array([0, 0, 0, 1, 1, 1, 1, 1, 0])
    groups_N = np.array([0, 0, 1, 2, 2, 3, 4, 4, 4])
    assert find_clusters(labels_N, groups_N).stratum_G.tolist() == [0, 0, 1, 1, 1]
    both_N = np.array([0, 0, 1, 2, 2, 3, 3, 4, 4])
    labels_N = np.array([0, 0, 0, 1, 1, 1, 0, 1, 0])
    assert find_clusters(labels_N, both_N).stratum_G.tolist() == [0, 0, 1, 2, 2]


def test_images_of_one_subject_are_worth_one():
    assert share_worth(np.ones(40), np.zeros(40, int))[0] == 1.0


def test_one_subject_that_alone_has_a_class_stays_in_every_draw():
    """Drawn with the others it would leave resamples without the class: no AUROC."""
    labels_N = np.r_[np.zeros(30, int), [0, 1, 1]]
    groups_N = np.r_[np.repeat(np.arange(10), 3), [10, 10, 10]]
    said_NC = np.random.default_rng(0).dirichlet([1, 1], len(labels_N))
    found = stratified_bootstrap(METRICS["auroc"], labels_N, said_NC, groups_N=groups_N)
    assert 0 <= found.low < found.value < found.high <= 1
    over = difference_over_seeds(
        METRICS["auroc"], labels_N, said_NC[None], said_NC[None, ::-1], groups_N=groups_N
    )
    assert np.isfinite([over.low, over.high, over.p]).all()


def test_what_one_lone_subject_adds_is_as_unsure_as_the_others_are():
    """Added as if it were known, it would give Student's t degrees of freedom that nobody has."""
    labels_N, groups_N, _ = of_lone_subject(np.random.default_rng(1))
    clusters = find_clusters(labels_N, groups_N)
    assert clusters.has_lone and parts_of_groups(clusters, 1.0, 7.0) == [(7.0, 40)]
    together = find_clusters(
        labels_N, np.where(groups_N == 0, 100 + np.arange(60) // 10, groups_N)
    )
    assert not together.has_lone and parts_of_groups(together, 1.0, 7.0) == [(1.0, 41)]
    assert parts_of_groups(None, 1.0, 7.0) == []
