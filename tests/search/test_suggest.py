"""What comes next: opening, retries as they were, the same sequence after a stop."""

import warnings
from itertools import pairwise
from types import SimpleNamespace

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from search_spaces import Baseline, Parameter, SearchSpace
from studies.database.trials import (
    INTERRUPTED,
    read_trials,
    to_retry,
    write_duplicate,
    write_provenance,
    write_reason,
)
from studies.search.suggest import (
    SearchPlan,
    next_logical_number,
    num_probes,
    num_untried,
    opening,
    remaining,
    suggest_next,
    whose_turn,
)

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
SMALL = SearchSpace(
    name="small",
    depths={"resnet18": 9},
    parameters=(
        Parameter(name="backbone", choices=("resnet18",)),
        Parameter(name="strategy", choices=("feature_extraction", "fine_tuning")),
        Parameter(name="learning_rate", choices=(1e-3,)),
        Parameter(name="batch_size", choices=(8, 16)),
        Parameter(name="num_unfrozen_layers", strategy="fine_tuning", low=1),
    ),
)


def plan(space=FREE, sampler="tpe", seed=0, share="trials"):
    return SearchPlan(space=space, opening=opening(space), seed=seed, sampler=sampler, share=share)


class Bench:
    """A study whose trials cost nothing and can be lost."""

    def __init__(self):
        self.storage = SimpleNamespace(database=InMemoryStorage())
        self.study = optuna.create_study(
            storage=self.storage.database, study_name="s", direction="maximize"
        )

    @property
    def records(self):
        return read_trials(self.study)

    def next(self, plan):
        return suggest_next(self.study, plan, self.records, worker="host:1:ab")

    def interrupt(self, trial):
        write_reason(self.storage, self.study, trial.number, INTERRUPTED)
        self.study.tell(trial.number, state=TrialState.FAIL)

    def finish(self, suggestion):
        """A cheap objective: high learning rates are better; every fifth trial is pruned."""
        trial = suggestion.trial
        if suggestion.duplicate_of is not None:
            write_duplicate(trial, suggestion.duplicate_of)
            self.study.tell(trial, suggestion.duplicate_of.value)
            return
        write_provenance(trial, suggestion.fields, {})
        value = suggestion.fields["learning_rate"] - 0.01 * (suggestion.fields["batch_size"] == 16)
        trial.report(value, 1)
        if suggestion.logical_number % 5 == 4:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, value)

    def run(self, plan, n_trials, lost_before=(), lost_after=()):
        """Run trials; those lost are interrupted before or after their configuration is stored."""
        lost_before, lost_after = set(lost_before), set(lost_after)
        while remaining(self.records, n_trials)[0]:
            suggestion = self.next(plan)
            number = suggestion.logical_number
            if number in lost_before:
                lost_before.discard(number)
                self.interrupt(suggestion.trial)
            elif number in lost_after:
                lost_after.discard(number)
                write_provenance(suggestion.trial, suggestion.fields, {})
                suggestion.trial.report(99.0, 1)
                self.interrupt(suggestion.trial)
            else:
                self.finish(suggestion)
        return [
            (r.logical_number, r.state, r.value, r.keyed_params)
            for r in self.records
            if not r.is_interrupted
        ]


@pytest.fixture
def bench():
    return Bench()


def test_probes_of_every_backbone_come_first_by_the_last_recipe():
    configurations = opening(FREE)
    probes = configurations[: num_probes(configurations)]
    assert [probe["backbone"] for probe in probes] == list(FREE.backbones)
    for probe in probes:
        assert probe["strategy"] == "feature_extraction"
        assert (probe["learning_rate@feature_extraction"], probe["batch_size"]) == (1e-3, 16)


def test_the_opening_has_every_baseline_on_the_first_backbone_once():
    on_the_first = [c for c in opening(FREE) if c["backbone"] == FREE.backbones[0]]
    baselines = [FREE.baseline_configuration(b, FREE.backbones[0]) for b in FREE.baselines]
    assert sorted(map(str, on_the_first)) == sorted(map(str, baselines))


def test_a_space_without_baselines_has_no_opening():
    assert opening(FINITE) == [] and num_probes([]) == 0


@pytest.mark.parametrize("strategy", list(RATES))
def test_a_strategy_that_is_left_out_has_no_part_in_the_opening(strategy):
    configurations = opening(FREE.narrowed(strategies=[strategy]))
    assert configurations and {c["strategy"] for c in configurations} == {strategy}
    assert num_probes(configurations) == (3 if strategy == "feature_extraction" else 0)


def test_probes_are_handed_out_first_and_recipes_and_draws_in_turn(bench):
    bench.run(plan(), N_TRIALS)
    given, configurations = [r.keyed_params for r in bench.records], opening(FREE)
    assert given[:3] == configurations[:3]
    for strategy, first, num_recipes in (("feature_extraction", 3, 1), ("fine_tuning", 0, 1)):
        mine = [c for c in given if c["strategy"] == strategy][first:]
        assert [c in configurations for c in mine[:2]] == [True, False]
        assert sum(c in configurations for c in mine) == num_recipes


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
def uninterrupted(request):
    the_plan = plan(sampler=request.param)
    return the_plan, Bench().run(the_plan, N_TRIALS)


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


@pytest.mark.parametrize("n_trials", [1, 2, 5, 14])
def test_a_larger_total_later_goes_on_as_if_it_had_been_asked_for_at_once(
    bench, uninterrupted, n_trials
):
    the_plan, expected = uninterrupted
    assert bench.run(the_plan, n_trials) == expected[:n_trials]
    assert bench.run(the_plan, N_TRIALS) == expected


def test_another_seed_gives_another_sequence(bench, uninterrupted):
    the_plan, expected = uninterrupted
    other = plan(sampler=the_plan.sampler, seed=1)
    assert bench.run(other, N_TRIALS) != expected


def test_tpe_learns_where_random_does_not(uninterrupted):
    the_plan, trials = uninterrupted
    if the_plan.sampler == "random":
        return
    for strategy in RATES:
        best = [
            v for _, state, v, c in trials if state == "COMPLETE" and c["strategy"] == strategy
        ]
        half = len(best) // 2
        assert sum(best[half:]) / len(best[half:]) > sum(best[:half]) / half


def test_the_smallest_free_number_is_next(bench):
    trials = [bench.next(plan()) for _ in range(4)]
    bench.interrupt(trials[1].trial)
    bench.interrupt(trials[2].trial)
    assert next_logical_number(bench.records) == 1
    assert bench.next(plan()).logical_number == 1
    assert bench.next(plan()).logical_number == 2
    assert bench.next(plan()).logical_number == 4


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("space", [FINITE, SMALL], ids=["one strategy", "both"])
def test_a_finite_space_is_exhausted_with_every_configuration_tried_once(bench, sampler, space):
    the_plan = plan(space, sampler=sampler)
    while whose_turn(the_plan, bench.records) is not None:
        bench.finish(bench.next(the_plan))
    given = [r.keyed_params for r in bench.records]
    assert len(given) == space.size()
    assert all(c in given for c in space.configurations())
    assert all(r.counts for r in bench.records)


def test_an_interrupted_configuration_remains_and_a_running_one_does_not(bench):
    suggestion = bench.next(plan(FINITE))
    assert num_untried(FINITE, "feature_extraction", bench.records) == 3
    bench.interrupt(suggestion.trial)
    assert num_untried(FINITE, "feature_extraction", bench.records) == 4


def test_a_continuous_space_always_has_more(bench):
    assert num_untried(FREE, "feature_extraction", bench.records) is None


def test_both_strategies_have_equal_shares_of_the_trials(bench):
    bench.run(plan(), N_TRIALS)
    given = [r.strategy for r in bench.records]
    assert abs(given.count("feature_extraction") - given.count("fine_tuning")) == 1
    later = given[6:]  # Behind the probes and as many trials of fine-tuning.
    assert all(a != b for a, b in pairwise(later))


def test_running_trials_count_as_handed_out(bench):
    given = [bench.next(plan()).fields["strategy"] for _ in range(8)]
    assert given == ["feature_extraction"] * 3 + ["fine_tuning"] * 3 + [
        "feature_extraction",
        "fine_tuning",
    ]


def test_a_strategy_that_is_used_up_leaves_its_turns_to_the_other(bench):
    the_plan = plan(SMALL)
    bench.run(the_plan, SMALL.size())
    given = [r.strategy for r in bench.records]
    assert given.count("feature_extraction") == 2 and given.count("fine_tuning") == 18
    assert given[:4].count("fine_tuning") == 2


def test_a_failed_trial_runs_again_with_its_configuration_and_number_and_counts_once(bench):
    bench.run(plan(), 4)
    lost = bench.next(plan())
    write_reason(bench.storage, bench.study, lost.trial.number, "out of memory")
    bench.study.tell(lost.trial, state=TrialState.FAIL)
    bench.run(plan(), 8)
    (failed,) = to_retry(bench.records)
    again = suggest_next(bench.study, plan(), bench.records, "host:1:ab", failed)
    assert (again.logical_number, again.fields) == (lost.logical_number, lost.fields)
    assert again.duplicate_of is None and to_retry(bench.records) == []
    bench.finish(again)
    assert remaining(bench.records, 8) == (0, 0)
    assert bench.next(plan()).logical_number == 8


def test_a_retry_that_is_interrupted_leaves_the_failure_as_it_was(bench):
    lost = bench.next(plan())
    write_reason(bench.storage, bench.study, lost.trial.number, "out of memory")
    bench.study.tell(lost.trial, state=TrialState.FAIL)
    (failed,) = to_retry(bench.records)
    bench.interrupt(suggest_next(bench.study, plan(), bench.records, "host:1:ab", failed).trial)
    assert [r.number for r in to_retry(bench.records)] == [failed.number]
    assert bench.records[0].counts


def test_room_leaves_running_trials_a_place_and_gives_interrupted_ones_theirs_back(bench):
    first, _ = bench.next(plan()), bench.next(plan())
    assert remaining(bench.records, 3) == (1, 2)
    bench.finish(first)
    assert remaining(bench.records, 3) == (1, 1)
    bench.interrupt(bench.records[1])
    assert remaining(bench.records, 3) == (2, 0)
    assert remaining(bench.records, 1) == (0, 0)


def test_a_baseline_outside_the_range_is_run_and_nothing_else_there_is(bench):
    wide = SearchSpace(
        name="wide",
        depths={"resnet18": 9},
        parameters=(
            Parameter(name="backbone", choices=("resnet18",)),
            Parameter(name="strategy", choices=("fine_tuning",)),
            Parameter(name="learning_rate", low=1e-3, high=1e-2, log=True),
            Parameter(name="batch_size", choices=(8, 16)),
            Parameter(name="num_unfrozen_layers", strategy="fine_tuning", low=1),
        ),
        baselines=(
            Baseline(strategy="fine_tuning", learning_rate=1e-5, batch_size=8, depth_share=1.0),
        ),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        done = bench.run(plan(wide), 20)
    rates = [configuration["learning_rate"] for *_, configuration in done]
    assert rates.count(1e-5) == 1
    assert all(1e-3 <= rate <= 1e-2 for rate in rates if rate != 1e-5)
