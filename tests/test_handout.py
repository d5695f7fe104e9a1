"""What comes next: opening, retries as they were, the same sequence after a stop."""

import optuna
import pytest
from optuna.trial import TrialState

from search_spaces import Baseline, Parameter, SearchSpace
from studies.handout import (
    MAX_DUPLICATES,
    Plan,
    hand_out,
    next_logical_number,
    num_probes,
    opening,
    remaining,
    room,
)
from studies.records import (
    INTERRUPTED,
    read_trials,
    write_duplicate,
    write_provenance,
    write_reason,
)
from studies.storage import open_storage

N_TRIALS = 25
DEPTHS = {"resnet18": 9, "resnet50": 17, "mobilenet_v2": 19}
RATES = {"feature_extraction": 1e-3, "fine_tuning": 1e-5}

FREE = SearchSpace(
    name="free",
    depths=DEPTHS,
    parameters=(
        Parameter(name="backbone", choices=tuple(DEPTHS)),
        Parameter(name="strategy", choices=tuple(RATES)),
        Parameter(
            name="learning_rate", strategy="feature_extraction", low=1e-4, high=1e-1, log=True
        ),
        Parameter(name="learning_rate", strategy="fine_tuning", low=1e-6, high=1e-3, log=True),
        Parameter(name="batch_size", choices=(8, 16, 32)),
        Parameter(name="num_unfrozen_layers", strategy="fine_tuning", low=1),
    ),
    baselines=(
        Baseline(strategy="fine_tuning", learning_rate=1e-5, batch_size=32, depth_share=1.0),
        Baseline(strategy="feature_extraction", learning_rate=1e-4, batch_size=32),
        Baseline(strategy="feature_extraction", learning_rate=1e-3, batch_size=16),
    ),
)
FINITE = SearchSpace(
    name="finite",
    depths=DEPTHS,
    parameters=(
        Parameter(name="backbone", choices=("resnet18",)),
        Parameter(name="strategy", choices=("feature_extraction",)),
        Parameter(name="learning_rate", choices=(1e-3, 1e-2)),
        Parameter(name="batch_size", choices=(8, 16)),
    ),
)


def plan(space=FREE, n_trials=N_TRIALS, sampler="tpe", seed=0):
    return Plan(space=space, opening=opening(space, n_trials), seed=seed, sampler=sampler)


class Bench:
    """A study whose trials cost nothing and can be lost."""

    def __init__(self, folder):
        self.storage = open_storage(f"sqlite:///{folder / 'studies.db'}")
        self.study = optuna.create_study(
            storage=self.storage.database, study_name="s", direction="maximize"
        )

    @property
    def records(self):
        return read_trials(self.study)

    def next(self, plan):
        return hand_out(self.study, plan, self.records, worker="host:1:ab")

    def interrupt(self, trial):
        write_reason(self.storage, self.study, trial.number, INTERRUPTED)
        self.study.tell(trial.number, state=TrialState.FAIL)

    def finish(self, handout):
        """A cheap objective: high learning rates are better; every fifth trial is pruned."""
        trial = handout.trial
        if handout.duplicate_of is not None:
            write_duplicate(trial, handout.duplicate_of)
            self.study.tell(trial, handout.duplicate_of.value)
            return
        write_provenance(trial, handout.fields, {})
        value = handout.fields["learning_rate"] - 0.01 * (handout.fields["batch_size"] == 16)
        trial.report(value, 1)
        if handout.logical_number % 5 == 4:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, value)

    def run(self, plan, n_trials, lost_before=(), lost_after=()):
        """Run trials; those lost are interrupted before or after their configuration is stored."""
        lost_before, lost_after = set(lost_before), set(lost_after)
        while room(self.records, n_trials)[0]:
            handout = self.next(plan)
            number = handout.logical_number
            if number in lost_before:
                lost_before.discard(number)
                self.interrupt(handout.trial)
            elif number in lost_after:
                lost_after.discard(number)
                write_provenance(handout.trial, handout.fields, {})
                handout.trial.report(99.0, 1)
                self.interrupt(handout.trial)
            else:
                self.finish(handout)
        return [
            (r.logical_number, r.state, r.value, r.keyed_params)
            for r in self.records
            if not r.is_interrupted
        ]


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


@pytest.mark.parametrize("n_trials", [1, 4, 8, 12, 30, 100])
def test_feature_extraction_comes_first_and_baselines_are_at_most_a_quarter(n_trials):
    configurations = opening(FREE, n_trials)
    strategies = [c["strategy"] for c in configurations]
    assert strategies == sorted(strategies)  # "feature_extraction" < "fine_tuning"
    baselines = [c for c in configurations if c["backbone"] == FREE.backbones[0]]
    assert 1 <= len(baselines) <= max(1, n_trials // 4)
    assert num_probes(configurations) == strategies.count("feature_extraction")


def test_every_other_backbone_gets_a_probe_with_the_last_recipe():
    probes = {c["backbone"]: c for c in opening(FREE, 30) if c["backbone"] != FREE.backbones[0]}
    assert set(probes) == set(FREE.backbones[1:])
    for probe in probes.values():
        assert probe["strategy"] == "feature_extraction"
        assert (probe["learning_rate@feature_extraction"], probe["batch_size"]) == (1e-3, 16)


def test_a_space_without_baselines_has_no_opening():
    assert opening(FINITE, 30) == []


def test_the_opening_is_handed_out_first_and_in_its_order(bench):
    bench.run(plan(), N_TRIALS)
    first = opening(FREE, N_TRIALS)
    assert [r.keyed_params for r in bench.records[: len(first)]] == first


@pytest.mark.parametrize("number", [0, 7, 20], ids=["opening", "random start", "model"])
@pytest.mark.parametrize("has_config", [False, True])
def test_an_interrupted_trial_is_given_again_with_its_number_and_configuration(
    bench, number, has_config
):
    bench.run(plan(), number)
    lost = bench.next(plan())
    if has_config:
        write_provenance(lost.trial, lost.fields, {})
    bench.interrupt(lost.trial)
    again = bench.next(plan())
    assert again.logical_number == lost.logical_number == number
    assert again.fields == lost.fields
    assert again.trial.number == lost.trial.number + 1


@pytest.fixture(scope="module", params=["tpe", "random"])
def uninterrupted(request, tmp_path_factory):
    the_plan = plan(sampler=request.param)
    return the_plan, Bench(tmp_path_factory.mktemp("whole")).run(the_plan, N_TRIALS)


@pytest.mark.parametrize(
    "lost",
    [
        {"lost_after": {0}},
        {"lost_after": {3, 11, 24}},
        {"lost_before": {3, 11, 24}},
        {"lost_before": {12, 13}, "lost_after": {14, 15, 20}},
    ],
    ids=["first", "after writing", "before writing", "several in a row"],
)
def test_interrupted_and_resumed_equals_uninterrupted(bench, uninterrupted, lost):
    the_plan, expected = uninterrupted
    assert bench.run(the_plan, N_TRIALS, **lost) == expected
    num_lost = sum(len(numbers) for numbers in lost.values())
    assert len(bench.records) == N_TRIALS + num_lost


def test_a_larger_total_later_goes_on_as_if_it_had_been_asked_for_at_once(bench, uninterrupted):
    the_plan, expected = uninterrupted
    bench.run(the_plan, 14)
    assert bench.run(the_plan, N_TRIALS) == expected


def test_another_seed_gives_another_sequence(bench, uninterrupted):
    the_plan, expected = uninterrupted
    other = plan(sampler=the_plan.sampler, seed=1)
    assert bench.run(other, N_TRIALS) != expected


def test_tpe_learns_where_random_does_not(uninterrupted):
    the_plan, trials = uninterrupted
    begun = len(the_plan.opening)
    best = [v for _, state, v, _ in trials[begun:] if state == "COMPLETE"]
    half = len(best) // 2
    if the_plan.sampler == "tpe":
        assert sum(best[half:]) / len(best[half:]) > sum(best[:half]) / half


def test_the_smallest_free_number_is_next(bench):
    trials = [bench.next(plan()) for _ in range(4)]
    bench.interrupt(trials[1].trial)
    bench.interrupt(trials[2].trial)
    assert next_logical_number(bench.records) == 1
    assert bench.next(plan()).logical_number == 1
    assert bench.next(plan()).logical_number == 2
    assert bench.next(plan()).logical_number == 4


def test_a_configuration_that_was_tried_is_recognised(bench):
    first = bench.next(plan(FINITE))
    bench.finish(first)
    fixed = Plan(space=FINITE, opening=[first.trial.params] * 2, seed=0, sampler="tpe")
    second = bench.next(fixed)
    assert second.duplicate_of.number == first.trial.number


def test_after_five_duplicates_in_a_row_an_untried_configuration_is_drawn(bench):
    first = bench.next(plan(FINITE))
    bench.finish(first)
    same = [first.trial.params] * (1 + MAX_DUPLICATES)
    stuck = Plan(space=FINITE, opening=same, seed=0, sampler="tpe")
    for _ in range(MAX_DUPLICATES):
        bench.finish(bench.next(stuck))
    assert [r.duplicate_of for r in bench.records] == [None] + [0] * MAX_DUPLICATES
    handout = bench.next(stuck)
    assert handout.duplicate_of is None
    assert handout.trial.params in remaining(FINITE, bench.records[:-1])


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_finite_space_is_exhausted_with_every_configuration_tried_once(bench, sampler):
    the_plan = plan(FINITE, sampler=sampler)
    while remaining(FINITE, bench.records):
        bench.finish(bench.next(the_plan))
    assert remaining(FINITE, bench.records) == []
    counted = [r.keyed_params for r in bench.records if r.counts]
    assert len(counted) == FINITE.size()
    assert all(c in counted for c in FINITE.configurations())


def test_an_interrupted_configuration_remains_and_a_running_one_does_not(bench):
    handout = bench.next(plan(FINITE))
    assert handout.trial.params not in remaining(FINITE, bench.records)
    bench.interrupt(handout.trial)
    assert handout.trial.params in remaining(FINITE, bench.records)


def test_a_continuous_space_always_has_more(bench):
    assert remaining(FREE, bench.records) is None


def test_room_leaves_running_trials_a_place_and_gives_interrupted_ones_theirs_back(bench):
    first, _ = bench.next(plan()), bench.next(plan())
    assert room(bench.records, 3) == (1, 2)
    bench.finish(first)
    assert room(bench.records, 3) == (1, 1)
    bench.interrupt(bench.records[1])
    assert room(bench.records, 3) == (2, 0)
    assert room(bench.records, 1) == (0, 0)
