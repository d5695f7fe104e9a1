"""Speed is measured with and without training, at a size that the backbone takes."""

import pytest
import torch

from transfer import throughput
from transfer.throughput import BATCH_SIZE, measure_throughput

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


def test_the_speedup_is_the_ratio_of_medians_behind_a_first_step_of_each(monkeypatch):
    seen = []
    seconds = iter([100.0, 100.0, 4.0, 1.0, 6.0, 2.0, 50.0, 3.0])

    def take(step, device):
        seen.append(step)
        return next(seconds)

    monkeypatch.setattr(throughput, "_seconds", take)
    found = throughput.measure_speedup("squeezenet1_1", "bf16", image_size=64, device=CPU)
    assert found == 6.0 / 2.0
    assert seen[0::2] == [seen[0]] * 4 and seen[1::2] == [seen[1]] * 4  # in turn


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_training_step_computes_in_its_precision_and_its_weights_stay_float32(precision):
    network = throughput._network("squeezenet1_1", CPU)
    dtypes = []
    network.blocks[0].register_forward_hook(lambda block, x, y: dtypes.append(y.dtype))
    throughput._training_step(network, throughput._noise(2, 64, CPU), precision)()
    expected = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    assert dtypes == [expected[precision]]
    assert {p.dtype for p in network.parameters()} == {torch.float32}
