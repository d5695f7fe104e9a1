"""Spaces are read from presets and TOML files; what is wrong is said in one line."""

import re
from collections import Counter

import pytest

from search_spaces import SpaceError, load_space, preset_names
from studies.spaces import Depths

DEPTHS = {"resnet18": 9, "mobilenet_v2": 19}
RIGHT = {
    "name": 'name = "mine"',
    "backbone": '[backbone]\nchoices = ["resnet18", "mobilenet_v2"]',
    "strategy": '[strategy]\nchoices = ["feature_extraction", "fine_tuning"]',
    "learning_rate": "[learning_rate]\nlow = 1e-4\nhigh = 1e-1\nlog = true",
    "batch_size": "[batch_size]\nchoices = [16, 32]",
    "layers": "[num_unfrozen_layers.fine_tuning]\nlow = 1",
}
BASELINE = '[[baselines]]\nstrategy = "feature_extraction"\nlearning_rate = 1e-3\nbatch_size = 16'


def toml(**changed):
    """A right space with sections changed or added, or (with an empty text) left out."""
    return "\n".join(section for section in {**RIGHT, **changed}.values() if section)


@pytest.fixture
def load(tmp_path):
    def load_text(text):
        path = tmp_path / "mine.toml"
        path.write_text(text, encoding="utf-8")
        return load_space(path, DEPTHS)

    return load_text


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_under_its_own_name_and_states_runnable_baselines(name):
    space = load_space(name, Depths())
    assert space.name == name
    assert {baseline.strategy for baseline in space.baselines} == set(space.strategies)
    for baseline in space.baselines:
        for backbone in space.backbones:
            assert space.baseline_configuration(baseline, backbone)["backbone"] == backbone


@pytest.mark.parametrize("name", preset_names())
def test_the_two_recipes_of_the_coursework_stay_baselines(name):
    told = {
        (b.strategy, b.model_extra["learning_rate"]) for b in load_space(name, Depths()).baselines
    }
    assert told >= {("feature_extraction", 1e-4), ("fine_tuning", 1e-5)}


def test_the_presets_that_the_documentation_names_are_shipped():
    assert {"coursework", "default", "demo"} <= set(preset_names())


def test_the_coursework_is_18_configurations_with_adam_and_whole_backbones():
    configurations = list(load_space("coursework", Depths()).configurations())
    assert len(configurations) == 18
    assert {configuration["optimizer"] for configuration in configurations} == {"adam"}
    assert {
        (c["backbone"], c["num_unfrozen_layers"])
        for c in configurations
        if c["strategy"] == "fine_tuning"
    } == {(name, Depths()[name]) for name in ("resnet18", "resnet50", "mobilenet_v2")}
    assert set(Counter((c["backbone"], c["strategy"]) for c in configurations).values()) == {3}


def test_a_file_is_read_as_it_is_written(load):
    space = load(toml(baselines=BASELINE, suggested="[suggested]\ntrials = 12\nepochs = 3"))
    assert (space.name, space.backbones) == ("mine", ("resnet18", "mobilenet_v2"))
    rate = next(p for p in space.parameters if p.name == "learning_rate")
    assert (rate.low, rate.high, rate.log) == (1e-4, 1e-1, True)
    assert space.suggested == {"trials": 12, "epochs": 3}
    assert space.baselines[0].model_extra == {"learning_rate": 1e-3, "batch_size": 16}


MALFORMED = {
    "unknown key": (toml(momentum="[momentum]\nchoices = [0.9]"), "unknown key 'momentum'"),
    "misspelt field": (toml(batch_size="[batchsize]\nchoices = [8]"), "unknown key 'batchsize'"),
    "no name": (toml(name=""), "key 'name' is missing"),
    "no backbone": (toml(backbone=""), "key 'backbone' is missing"),
    "no strategy": (toml(strategy=""), "key 'strategy' is missing"),
    "name is a number": (toml(name="name = 3"), "'name'"),
    "no batch size": (toml(batch_size=""), "[batch_size] must be given"),
    "no learning rate": (toml(learning_rate=""), "[learning_rate] must be given"),
    "no depth": (toml(layers=""), "[num_unfrozen_layers] must be given"),
    "unknown backbone": (
        toml(backbone='[backbone]\nchoices = ["resnet51"]'),
        "Unknown backbone 'resnet51'; choose from mobilenet_v2, resnet18.",
    ),
    "backbone in a range": (toml(backbone="[backbone]\nlow = 1\nhigh = 2"), "[backbone]"),
    "backbone for a strategy": (
        toml(backbone='[backbone.fine_tuning]\nchoices = ["resnet18"]'),
        "[backbone] must have choices for both",
    ),
    "backbone is a text": (toml(name='name = "a"\nbackbone = "resnet18"', backbone=""), "a table"),
    "unknown strategy": (
        toml(strategy='[strategy]\nchoices = ["zero_shot"]'),
        "must be one of feature_extraction, fine_tuning, but got 'zero_shot'",
    ),
    "range for an unknown strategy": (
        toml(learning_rate="[learning_rate.zero_shot]\nlow = 1e-4\nhigh = 1e-1"),
        "[learning_rate] 'zero_shot'",
    ),
    "range for one and for all": (
        toml(learning_rate="[learning_rate]\nlow = 1e-4\n[learning_rate.fine_tuning]\nlow = 1"),
        "[learning_rate] has both",
    ),
    "range for a strategy is a number": (
        toml(learning_rate="[learning_rate]\nfine_tuning = 1e-4"),
        "[learning_rate.fine_tuning] must be a table",
    ),
    "unknown key in a table": (
        toml(batch_size="[batch_size]\nvalues = [8]"),
        "[batch_size] 'values'",
    ),
    "reserved key in a table": (
        toml(batch_size='[batch_size]\nname = "x"\nchoices = [8]'),
        "[batch_size] takes choices, or low, high and log",
    ),
    "no choices": (toml(batch_size="[batch_size]\nchoices = []"), "[batch_size] 'choices'"),
    "choices is a number": (
        toml(batch_size="[batch_size]\nchoices = 8"),
        "[batch_size] 'choices'",
    ),
    "a choice is a truth": (toml(batch_size="[batch_size]\nchoices = [true]"), "[batch_size]"),
    "a choice is a list": (toml(batch_size="[batch_size]\nchoices = [[8]]"), "[batch_size]"),
    "a choice is a text": (toml(batch_size='[batch_size]\nchoices = ["8"]'), "but got '8'"),
    "a choice is a fraction": (toml(batch_size="[batch_size]\nchoices = [8.5]"), "but got 8.5"),
    "a choice twice": (toml(batch_size="[batch_size]\nchoices = [8, 8]"), "must differ"),
    "batch of none": (toml(batch_size="[batch_size]\nchoices = [0]"), "must be >= 1, but got 0"),
    "empty table": (toml(batch_size="[batch_size]"), "[batch_size] must have either choices or"),
    "choices and a range": (
        toml(batch_size="[batch_size]\nchoices = [8]\nlow = 1\nhigh = 2"),
        "[batch_size] must have either choices or",
    ),
    "low without high": (
        toml(learning_rate="[learning_rate]\nlow = 1e-4"),
        "[learning_rate] has low, so it must have high",
    ),
    "high without low": (
        toml(learning_rate="[learning_rate]\nhigh = 1e-4"),
        "[learning_rate] must have either choices or low and high",
    ),
    "low above high": (
        toml(learning_rate="[learning_rate]\nlow = 0.1\nhigh = 0.01"),
        "[learning_rate] low <= high must hold, but got low=0.1, high=0.01",
    ),
    "rate of zero": (
        toml(learning_rate="[learning_rate]\nlow = 0.0\nhigh = 0.1"),
        "[learning_rate] values must be > 0, but got 0.0",
    ),
    "rate not a number": (
        toml(learning_rate="[learning_rate]\nlow = nan\nhigh = 0.1"),
        "[learning_rate] values must be > 0, but got nan",
    ),
    "rate infinite": (
        toml(learning_rate="[learning_rate]\nlow = 0.1\nhigh = inf"),
        "[learning_rate] values must be > 0, but got inf",
    ),
    "log from zero": (
        toml(dropout="[dropout]\nlow = 0.0\nhigh = 0.5\nlog = true"),
        "[dropout] low > 0 must hold with log = true",
    ),
    "log is a number": (
        toml(learning_rate="[learning_rate]\nlow = 0.1\nhigh = 1\nlog = 1"),
        "[learning_rate] 'log'",
    ),
    "dropout of one": (toml(dropout="[dropout]\nchoices = [1.0]"), "[dropout] values must be in"),
    "unknown optimizer": (
        toml(optimizer='[optimizer]\nchoices = ["lion"]'),
        "[optimizer] values must be one of adamw, adam, sgd, but got 'lion'",
    ),
    "depth for both": (
        toml(layers="[num_unfrozen_layers]\nlow = 1"),
        "[num_unfrozen_layers] belongs to fine_tuning alone",
    ),
    "deeper than a backbone": (
        toml(layers="[num_unfrozen_layers.fine_tuning]\nlow = 10"),
        "[num_unfrozen_layers] must lie within 1 and resnet18's depth 9",
    ),
    "share above one": (
        toml(layers="[num_unfrozen_layers.fine_tuning]\ndepth_share = 1.5"),
        "[num_unfrozen_layers.fine_tuning] 'depth_share'",
    ),
    "baselines is a table": (
        toml(baselines='[baselines]\nstrategy = "fine_tuning"'),
        "baselines are written as [[baselines]]",
    ),
    "baseline without strategy": (
        toml(baselines="[[baselines]]\nbatch_size = 16"),
        "strategy",
    ),
    "baseline outside": (
        toml(baselines=BASELINE.replace("16", "17")),
        "baseline value batch_size=17 lies outside the space",
    ),
    "baseline with an unknown key": (
        toml(baselines=BASELINE + "\nmomentum = 0.9"),
        "baseline key 'momentum'",
    ),
    "baseline without depth": (
        toml(baselines=BASELINE.replace("feature_extraction", "fine_tuning")),
        "must state num_unfrozen_layers (depth_share)",
    ),
    "suggested is unknown": (toml(suggested="[suggested]\nseed = 3"), "but got seed=3"),
    "suggested is no count": (toml(suggested="[suggested]\ntrials = 0"), "but got trials=0"),
    "suggested is a number": (toml(name='name = "a"\nsuggested = 3'), "suggested"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_space_is_one_line_with_the_file_and_the_key_or_law(load, tmp_path, case):
    text, said = MALFORMED[case]
    with pytest.raises(SpaceError) as error:
        load(text)
    message = str(error.value)
    assert re.match(rf"{re.escape(str(tmp_path))}/mine\.toml(:[1-9][0-9]*)?: ", message)
    assert said in message
    assert message.endswith(".") and not message.endswith("..")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (toml(batch_size="[batch_size]\n# eight\nchoices = [0]"), "choices = [0]"),
        (toml(learning_rate="[learning_rate]\nlow = 1\nhigh = 0.1"), "low = 1"),
        (toml(learning_rate="[learning_rate]\nlow = 1e-4\nhigh = -1"), "low = 1e-4"),
        (toml(batch_size="[batch_size]\nvalues = [8]"), "values = [8]"),
        (toml(batch_size="[batch_size]"), "[batch_size]"),
        (toml(batch_size="", strategy="[ strategy ]\nchoices = ['x']"), "choices = ['x']"),
        (toml(layers="[num_unfrozen_layers.fine_tuning]\nlow = 99"), "[num_unfrozen_layers.fine"),
        (toml(layers="num_unfrozen_layers.fine_tuning.low = 0"), "[batch_size]"),
        (toml(name="name = 3"), "name = 3"),
        (toml(suggested="[suggested]\nepochs = 0"), "epochs = 0"),
        (toml(baselines=f"{BASELINE}\n{BASELINE.replace('16', '17')}"), "batch_size = 17"),
        (toml(baselines=f"{BASELINE}\n{BASELINE}\nmomentum = 1"), "momentum = 1"),
        (toml(backbone='[backbone]\nchoices = ["resnet51"]'), 'choices = ["resnet51"]'),
        (toml(unknown="[momentum]\nlow = 1"), "[momentum]"),
    ],
)
def test_an_error_names_the_line_of_the_key_or_of_its_table(load, text, line):
    with pytest.raises(SpaceError) as error:
        load(text)
    number = int(re.search(r"mine\.toml:(\d+): ", str(error.value))[1])
    assert text.splitlines()[number - 1].startswith(line)


def test_a_backbone_that_is_not_listed_is_looked_up_when_it_is_chosen(tmp_path):
    class More(dict):
        """Knows one network more than it lists, and why another is refused."""

        def __getitem__(self, name):
            if name == "other:refused":
                raise ValueError("it has no layers")
            return 7 if name == "other:net" else super().__getitem__(name)

    path = tmp_path / "mine.toml"
    path.write_text(toml(backbone='[backbone]\nchoices = ["other:net"]'), encoding="utf-8")
    assert load_space(path, More(DEPTHS)).depths == {**DEPTHS, "other:net": 7}
    path.write_text(toml(backbone='[backbone]\nchoices = ["other:refused"]'), encoding="utf-8")
    with pytest.raises(SpaceError, match=r"mine\.toml:3: it has no layers\.$"):
        load_space(path, More(DEPTHS))


def test_a_path_with_dots_is_named_as_it_was_given(tmp_path, monkeypatch):
    (tmp_path / "below").mkdir()
    (tmp_path / "mine.toml").write_text(toml(name=""), encoding="utf-8")
    monkeypatch.chdir(tmp_path / "below")
    with pytest.raises(SpaceError, match=r"^\.\./mine\.toml: "):
        load_space("../mine.toml", DEPTHS)


def test_what_is_not_toml_is_refused_with_its_line(load, tmp_path):
    with pytest.raises(SpaceError) as error:
        load('name = "mine"\n\n[backbone\nchoices = []\n')
    assert str(error.value).startswith(f"{tmp_path / 'mine.toml'}: not valid TOML: ")
    assert "line 3" in str(error.value)


def test_what_is_not_text_is_refused(tmp_path):
    (tmp_path / "mine.toml").write_bytes(b"name = \xff\xfe")
    with pytest.raises(SpaceError, match=r"mine\.toml: not a text file in UTF-8"):
        load_space(tmp_path / "mine.toml", DEPTHS)


@pytest.mark.parametrize("place", ["tiny", "."])
def test_an_unknown_space_names_the_presets(place):
    with pytest.raises(SpaceError) as error:
        load_space(place, DEPTHS)
    presets = ", ".join(preset_names())
    assert str(error.value) == (
        f"Unknown space '{place}'; choose from {presets} or give a TOML file."
    )
