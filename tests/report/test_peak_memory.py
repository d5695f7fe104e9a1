"""The peak of a training is its own, whatever the process held before it, or unknown."""

import platform
from types import SimpleNamespace

import pytest
from trainings import activations, config, data  # noqa: F401

from studies.report import judged, task_b_c
from transfer.training.train import train

MIB = 2**20


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")
def test_a_probe_costs_the_same_before_and_after_large_networks(activations):
    first = train(config(), activations)
    # 45 and 100 MB, each once as it was trained and once with its convolutions fused.
    activations.features("resnet50")
    activations.features("convnext_tiny")
    again = train(config(), activations)
    for result in (first, again):
        assert result.peak_memory_bytes < 40 * MIB
    of_all_layers = train(config(9, epochs=1), activations)
    # Weights, gradients and two moments of 11 million parameters.
    assert of_all_layers.peak_memory_bytes > 4 * 4 * 11_000_000


def trial(strategy, peak_memory_bytes, number=0):
    return SimpleNamespace(
        number=number,
        strategy=strategy,
        state="COMPLETE",
        num_trainable_parameters=1026,
        params={"seed": 0},
        peak_memory_bytes=peak_memory_bytes,
    )


def ratio(*trials):
    tuned, extracted = (
        SimpleNamespace(runs=[t for t in trials if t.strategy == name])
        for name in ("fine_tuning", "feature_extraction")
    )
    return judged._ratio(tuned, extracted, lambda run: run.peak_memory_bytes)


def test_the_ratio_of_peaks_is_of_those_that_are_known():
    known = [trial("fine_tuning", 300), trial("fine_tuning", 300)]
    known += [trial("feature_extraction", 100), trial("feature_extraction", 100)]
    assert ratio(*known).value == pytest.approx(3)
    assert ratio(*known, trial("fine_tuning", None)).value == pytest.approx(3)
    assert ratio(*known[:3], trial("feature_extraction", None)) is None


@pytest.mark.parametrize(
    ("peaks", "words"),
    [
        ((5_000_000, None, 7_000_000), ", at most 7.0 MB of memory"),
        ((0,), ", at most 0 kB of memory"),
        ((None, None), ", memory unknown"),
    ],
)
def test_the_report_says_what_a_candidate_costs_or_that_it_is_unknown(peaks, words):
    candidate = SimpleNamespace(
        runs=[trial("fine_tuning", peak, number) for number, peak in enumerate(peaks)],
        mean_seconds=2.0,
        number=0,
    )
    assert task_b_c._cost(SimpleNamespace(name="s"), candidate)[-1].endswith(words)
