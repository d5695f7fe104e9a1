"""A parameter from the command line replaces the space's own, and nothing else."""

import pytest

from search_spaces import Baseline, Parameter, SearchSpace, SpaceError
from search_spaces.fields import FIELDS
from search_spaces.overrides import with_overrides

SHARED = (
    Parameter(name="backbone", choices=("deep", "flat")),
    Parameter(name="strategy", choices=("feature_extraction", "fine_tuning")),
    Parameter(name="batch_size", choices=(8, 16)),
    Parameter(name="num_unfrozen_layers", strategy="fine_tuning", low=1),
)
BY_STRATEGY = (
    Parameter(name="learning_rate", strategy="feature_extraction", low=1e-4, high=1e-1, log=True),
    Parameter(name="learning_rate", strategy="fine_tuning", low=1e-6, high=1e-3, log=True),
)
FOR_BOTH = (Parameter(name="learning_rate", low=1e-5, high=1e-1, log=True),)


def space(rates=BY_STRATEGY, baselines=()):
    parameters = (*SHARED, *rates)
    return SearchSpace(
        name="s", depths={"deep": 19, "flat": 5}, parameters=parameters, baselines=baselines
    )


def named(space, name):
    return [p for p in space.parameters if p.name == name]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("batch_size=32", {"name": "batch_size", "choices": (32,)}),
        ("batch_size=32,64", {"name": "batch_size", "choices": (32, 64)}),
        (" batch_size = 2..4 ", {"name": "batch_size", "low": 2, "high": 4}),
        ("dropout=0..0.5", {"name": "dropout", "low": 0.0, "high": 0.5}),
        ("optimizer=sgd", {"name": "optimizer", "choices": ("sgd",)}),
        (
            "num_unfrozen_layers=2..4",
            {"name": "num_unfrozen_layers", "strategy": "fine_tuning", "low": 2, "high": 4},
        ),
        (
            "num_unfrozen_layers=3..",
            {"name": "num_unfrozen_layers", "strategy": "fine_tuning", "low": 3},
        ),
        (
            "layer_decay@fine_tuning=0.5,1",
            {"name": "layer_decay", "strategy": "fine_tuning", "choices": (0.5, 1.0)},
        ),
        (
            "learning_rate=1e-5..1e-4",
            {"name": "learning_rate", "low": 1e-5, "high": 1e-4, "log": True},
        ),
    ],
)
def test_a_text_becomes_the_only_parameter_of_its_name(text, expected):
    before = space()
    after = with_overrides(before, [text])
    assert named(after, expected["name"]) == [Parameter(**expected)]
    others = [p for p in after.parameters if p.name != expected["name"]]
    assert others == [p for p in before.parameters if p.name != expected["name"]]


@pytest.mark.parametrize(
    ("text", "log"),
    [
        ("learning_rate=1e-4..1e-1", True),
        ("learning_rate=1e-4..1e-1,linear", False),
        ("weight_decay=0..1,linear", False),
        ("weight_decay=1e-5..1e-1", False),
        ("weight_decay=1e-5..1e-1, log", True),
    ],
)
def test_a_range_keeps_its_scale_or_takes_the_one_that_is_written(text, log):
    (parameter,) = named(with_overrides(space(), [text]), text.partition("=")[0])
    assert parameter.log is log


def test_a_range_of_a_strategy_that_is_not_searched_is_refused():
    narrowed = space().narrowed(strategies=["feature_extraction"])
    with pytest.raises(SpaceError, match="strategy 'fine_tuning' is not searched"):
        with_overrides(narrowed, ["learning_rate@fine_tuning=1e-5..1e-4"])


@pytest.mark.parametrize("rates", [BY_STRATEGY, FOR_BOTH], ids=["by strategy", "for both"])
def test_a_range_for_one_strategy_leaves_the_other_its_own(rates):
    after = with_overrides(space(rates), ["learning_rate@fine_tuning=1e-5..1e-4"])
    for backbone in after.backbones:
        before = next(
            p for p in space(rates).below(backbone, "feature_extraction") if "rate" in p.name
        )
        kept = next(p for p in after.below(backbone, "feature_extraction") if "rate" in p.name)
        new = next(p for p in after.below(backbone, "fine_tuning") if "rate" in p.name)
        assert (kept.low, kept.high, kept.log) == (before.low, before.high, before.log)
        assert (new.low, new.high, new.log) == (1e-5, 1e-4, True)
    assert len(named(after, "learning_rate")) == 2


def test_texts_are_taken_in_turn():
    after = with_overrides(space(), ["dropout=0.1", "dropout=0.2", "mixup=0.4"])
    assert named(after, "dropout") == [Parameter(name="dropout", choices=(0.2,))]
    assert named(after, "mixup") == [Parameter(name="mixup", choices=(0.4,))]


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("batch_size=64", "batch_size", 64),
        ("learning_rate@fine_tuning=1e-5", "learning_rate@fine_tuning", 1e-5),
        ("num_unfrozen_layers=2", "num_unfrozen_layers", 2),
        ("num_unfrozen_layers=1..3", "num_unfrozen_layers", 3),
        ("batch_size=4,16,64", "batch_size", 4),
        ("batch_size=16..32", "batch_size", 16),
        ("learning_rate=1e-3..1e-2", "learning_rate", 1e-3),
        ("dropout=0.5,0.3", "dropout", 0.3),
        ("optimizer=sgd,adam", "optimizer", "sgd"),
    ],
)
def test_a_value_of_a_baseline_moves_to_the_nearest_that_is_allowed(text, key, value):
    baseline = Baseline(strategy="fine_tuning", learning_rate=1e-4, batch_size=8, depth_share=1.0)
    after = with_overrides(space(baselines=(baseline,)), [text])
    (kept,) = after.baselines
    assert after.baseline_configuration(kept, "deep")[key] == value


def test_a_value_fixed_for_one_strategy_changes_no_baseline_of_the_other():
    baseline = Baseline(strategy="feature_extraction", learning_rate=1e-3, batch_size=8)
    after = with_overrides(space(baselines=(baseline,)), ["learning_rate@fine_tuning=1e-5"])
    assert after.baselines == (baseline,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("batch_size", "it is written as NAME=LOW..HIGH"),
        ("=3", "it is written as"),
        ("batch_size=", "it is written as"),
        ("momentum=0.9", "unknown parameter 'momentum'; choose from learning_rate"),
        ("batch_size@both=8", "unknown strategy 'both'"),
        ("batch_size=8.5", "values of batch_size are whole numbers, but got '8.5'"),
        ("learning_rate=fast", "values of learning_rate are numbers, but got 'fast'"),
        ("learning_rate=1e-3..1e-5", "low <= high must hold"),
        ("learning_rate=0..1", "low > 0 must hold with log = true"),
        ("weight_decay=0..0.5,log", "write weight_decay=0..0.5,linear"),
        ("learning_rate=1e-4..1,cubic", "it is written as"),
        ("weight_decay=0..1,log", "where 0 is no bound"),
        ("learning_rate=..1", "must have either choices or low and high"),
        ("learning_rate=1..", "has low, so it must have high"),
        ("dropout=0.2,1.5", "values must be in [0, 1), but got 1.5"),
        ("dropout=nan", "got nan"),
        ("optimizer=lion", "must be one of adamw, adam, sgd, but got 'lion'"),
        ("optimizer=adam..sgd", "values of optimizer are names"),
        ("batch_size=8,8", "choices must differ"),
        ("num_unfrozen_layers=0..3", "values must be >= 1"),
        ("num_unfrozen_layers=6..", "flat's depth 5"),
        ("batch_norm@feature_extraction=frozen", "belongs to fine_tuning alone"),
        ("backbone=flat", "chosen with --backbones"),
        ("strategy=fine_tuning", "chosen with --strategies"),
    ],
)
def test_a_text_that_is_wrong_is_one_line_with_the_text_and_the_law(text, said):
    with pytest.raises(SpaceError) as error:
        with_overrides(space(), [text])
    message = str(error.value)
    assert message.startswith(f"--set {text}: ") and said in message
    assert "\n" not in message and message.endswith(".") and not message.endswith("..")


@pytest.mark.parametrize("name", [n for n in FIELDS if FIELDS[n].default is not None])
def test_every_recipe_can_be_set_to_its_default_and_baselines_then_stay(name):
    baselines = (
        Baseline(strategy="fine_tuning", learning_rate=1e-4, batch_size=8, depth_share=1.0),
    )
    text = f"{name}={FIELDS[name].default}"
    assert with_overrides(space(baselines=baselines), [text]).baselines == baselines
