"""Speed is measured with and without training, at a size that the backbone takes."""

import math

import pytest
import torch

from transfer.training import throughput
from transfer.training.throughput import BATCH_SIZE, measure_throughput

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves on, so that nothing depends on this machine's speed."""
    now = [0.0]
    monkeypatch.setattr(throughput, "perf_counter", lambda: now[0])
    return now


def test_frozen_blocks_move_nothing_and_training_moves_layers_from_the_first_to_the_last(
    monkeypatch,
):
    network = throughput._network("squeezenet1_1", CPU)
    moved, seen = [], []

    def step_once(step, device):
        before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
        step()
        changed = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
        moved.append({key.rsplit(".", 1)[0].split(".")[1] for key in changed if "blocks" in key})
        return 1.0

    monkeypatch.setattr(throughput, "_network", lambda name, device: network)
    monkeypatch.setattr(throughput, "_images_per_second", step_once)
    measure_throughput(
        "squeezenet1_1", image_size=64, device=CPU, on_progress=lambda *args: seen.append(args)
    )
    frozen, trained = moved
    assert frozen == set()
    assert {"0", "8"} <= trained
    assert seen == [("speed of squeezenet1_1", done, 2) for done in range(3)]


@pytest.mark.parametrize(
    ("seconds", "num_steps"), [(10.0, 1 + 3), (0.25, 1 + 4)], ids=["three batches", "one second"]
)
def test_at_least_three_batches_and_one_second_are_measured_behind_a_first(
    clock, seconds, num_steps
):
    calls = []

    def step():
        calls.append(1)
        clock[0] += seconds

    assert throughput._images_per_second(step, CPU) == BATCH_SIZE / seconds
    assert len(calls) == num_steps


def test_the_first_batch_and_outliers_do_not_count(clock):
    durations = iter([100.0, 1.0, 50.0, 1.0])

    def step():
        clock[0] += next(durations)

    assert throughput._images_per_second(step, CPU) == BATCH_SIZE / 1.0


def test_the_global_random_state_stays(monkeypatch):
    monkeypatch.setattr(throughput, "_images_per_second", lambda step, device: 1.0)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    measure_throughput("squeezenet1_1", image_size=64, device=CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_size_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="'densenet121' can't take images of 16 x 16 pixels"):
        measure_throughput("densenet121", image_size=16, device=CPU)


class Steps:
    """Steps that take these seconds of a clock: each pair in float32 and in half the bits."""

    def __init__(self, monkeypatch, clock, warm, *pairs):
        self.seen, self.in_fp32 = [], []
        seconds = [*warm]
        for number, (single, half) in enumerate(pairs):
            seconds += [single, half] if number % 2 == 0 else [half, single]
        self.left = iter(seconds)
        monkeypatch.setattr(
            throughput, "_training_step", lambda network, images, precision: precision
        )

        def take(step, device):
            self.seen.append(step)
            taken = next(self.left)
            clock[0] += taken
            return taken

        monkeypatch.setattr(throughput, "_own_seconds", take)
        monkeypatch.setattr(throughput, "_network", lambda name, device: None)


def speedup(**given):
    return throughput.measure_speedup("squeezenet1_1", "bf16", image_size=64, device=CPU, **given)


def test_the_speedup_is_the_mean_over_pairs_of_steps_behind_one_of_each(monkeypatch, clock):
    steps = Steps(monkeypatch, clock, (90, 90), (2, 1), (3, 1.5), (4, 2), (8, 4))
    found = speedup(until=lambda found: len(steps.seen) == 2 + 2 * 4, max_seconds=1000)
    assert found.value == pytest.approx(2)
    # Each goes first in every other pair.
    assert steps.seen[2:] == ["fp32", "bf16", "bf16", "fp32"] * 2
    # Four ratios that agree exactly may do so by chance.
    half = 3.182 * throughput.LEAST_SPREAD / 2
    assert found.low == pytest.approx(2 * math.exp(-half), rel=1e-3)
    assert found.high == pytest.approx(2 * math.exp(half), rel=1e-3)


def test_ratios_that_disagree_make_a_wide_interval(monkeypatch, clock):
    Steps(monkeypatch, clock, (1, 1), (2, 1), (1, 1), (4, 1))
    found = speedup(max_seconds=1)
    assert found.value == pytest.approx(2) and found.low < 1 < 3 < found.high
    assert not found.is_clear(1.1)


@pytest.mark.parametrize(
    ("low", "high", "is_clear"), [(1.1, 2.0, True), (0.5, 1.09, True), (1.0, 1.1, False)]
)
def test_a_speedup_is_clear_on_one_side_of_the_least(low, high, is_clear):
    assert (
        throughput.Speedup(value=1.1, low=low, high=high, was_quiet=True).is_clear(1.1) is is_clear
    )


@pytest.mark.parametrize(
    ("seconds", "num_pairs"), [(0.25, 4), (0.01, 100), (50.0, 3)], ids=["some", "many", "three"]
)
def test_pairs_are_measured_for_two_seconds_or_three_times(monkeypatch, clock, seconds, num_pairs):
    pair = (seconds, seconds)
    steps = Steps(monkeypatch, clock, pair, *[pair] * 200)
    found = speedup()
    assert found.value == pytest.approx(1) and found.was_quiet
    assert (len(steps.seen) - 2) / 2 == pytest.approx(num_pairs, abs=1)


def test_on_a_busy_machine_the_wait_ends_too(monkeypatch, clock):
    steps = Steps(monkeypatch, clock, (1, 1), *[(1e-3, 1e-3)] * 200)
    take = throughput._own_seconds

    def slowly(step, device):
        clock[0] += 1.0
        return take(step, device)

    monkeypatch.setattr(throughput, "_own_seconds", slowly)
    assert not speedup().was_quiet
    assert (len(steps.seen) - 2) / 2 == 4


def test_what_is_clear_ends_at_the_third_pair(monkeypatch, clock):
    steps = Steps(monkeypatch, clock, (1, 1), *[(0.02, 0.01)] * 50)
    assert speedup(until=lambda found: found.is_clear(1.1)).low > 1.1
    assert len(steps.seen) == 2 + 2 * 3


@pytest.mark.parametrize(
    ("size", "num_images"),
    [(32, 16), (162, 16), (163, 8), (224, 8), (229, 8), (230, 4), (325, 2), (512, 2)],
)
def test_fewer_large_images_are_measured(size, num_images):
    assert throughput.speedup_images(size) == num_images


def test_on_a_cpu_the_time_of_other_processes_does_not_count(monkeypatch):
    wall, own = [0.0], [0.0]

    def step():
        wall[0] += 10.0
        own[0] += 4.0

    monkeypatch.setattr(throughput, "perf_counter", lambda: wall[0])
    monkeypatch.setattr(throughput, "process_time", lambda: own[0])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert throughput._own_seconds(step, CPU) == 2.0
    monkeypatch.setattr(throughput, "_wait_for", lambda device: None)
    assert throughput._own_seconds(step, torch.device("cuda")) == 10.0


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_training_step_computes_in_its_precision_and_its_weights_stay_float32(precision):
    network = throughput._network("squeezenet1_1", CPU)
    dtypes = []
    network.blocks[0].register_forward_hook(lambda block, x, y: dtypes.append(y.dtype))
    throughput._training_step(network, throughput._noise(2, 64, CPU), precision)()
    expected = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    assert dtypes == [expected[precision]]
    assert {p.dtype for p in network.parameters()} == {torch.float32}
