"""A study's seconds, memory and reuse are the sums of what its trials stored."""

from types import SimpleNamespace

from studies.results.accounting import WORK, account

STUDY = SimpleNamespace(decoding_seconds=4.0, between_trials_seconds=1.5)


def trial(backbone="resnet18", start=0, kept=0, was_at_hand=False, **changes):
    fields = {
        "counts": True,
        "params": {"backbone": backbone},
        "config": {"num_views": 1},
        "timing": {"activations": 1.0, "training": 2.0, "validation": 0.5, "bookkeeping": 0.25},
        "peak_memory_bytes": 1000,
        "cache": {"start": start, "bytes": kept, "was_at_hand": was_at_hand},
    }
    return SimpleNamespace(**{**fields, **changes})


def test_seconds_are_added_up_by_kind_of_work_and_interrupted_trials_left_out():
    found = account(STUDY, [trial(), trial(), trial(counts=False)])
    assert list(found.seconds) == list(WORK)
    assert found.seconds == {
        "decoding": 4.0,
        "activations": 2.0,
        "training": 4.0,
        "validation": 1.0,
        "bookkeeping": 2.0,
    }
    assert found.num_trials == 2


def test_the_peak_is_that_of_the_hungriest_trial():
    peaks = [trial(peak_memory_bytes=n) for n in (5, None, 9, 2)]
    assert account(STUDY, peaks).peak_memory_bytes == 9
    assert account(STUDY, [trial(peak_memory_bytes=None)]).peak_memory_bytes is None


def test_what_is_kept_counts_once_and_reuse_for_every_trial_that_had_it():
    found = account(
        STUDY,
        [
            trial(start=9, kept=100),
            trial(start=9, kept=100, was_at_hand=True),
            trial(start=5, kept=50),
            trial("resnet50", start=9, kept=7, was_at_hand=True),
            # From the images, all layers trained: nothing was computed, and nothing reused.
            trial(was_at_hand=True),
        ],
    )
    assert (found.kept_bytes, found.num_reused, found.num_trials) == (157, 2, 5)


def test_a_trial_that_failed_or_is_older_than_the_accounting_counts_with_what_it_has():
    bare = trial(timing={"training": 3.0}, peak_memory_bytes=None, cache={})
    found = account(STUDY, [bare, trial()])
    assert (found.seconds["training"], found.seconds["activations"]) == (5.0, 1.0)
    assert found.peak_memory_bytes == 1000


def test_the_lines_say_what_the_json_says():
    found = account(STUDY, [trial(start=9, kept=2_000_000, was_at_hand=True), trial()])
    assert found.lines() == [
        "Seconds: decoding 4.0, activations 2.0, training 4.0, validation 1.0, bookkeeping 2.0.",
        "Peak memory of a trial: 1.0 KB.",
        "Activations: 2.0 MB kept; 1 of 2 trials found theirs computed.",
    ]
    assert found.as_json() == {
        "seconds": found.seconds,
        "peak_memory_bytes": 1000,
        "kept_bytes": 2_000_000,
        "reused": 1,
        "trials": 2,
    }
    none = account(STUDY, [trial(peak_memory_bytes=None)])
    assert none.lines()[1:] == [
        "Peak memory of a trial: unknown.",
        "Activations: none kept; 0 of 1 trials found theirs computed.",
    ]


def test_views_that_several_trials_share_count_once():
    trials = [trial(start=9, kept=100 * views, config={"num_views": views}) for views in (1, 3, 2)]
    assert account(STUDY, trials).kept_bytes == 300
