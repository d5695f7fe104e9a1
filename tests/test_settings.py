"""Options from flags and files, checked; settings: who decides what was not given."""

import pytest

from studies.errors import UserError
from studies.settings import DEFAULTS, FIXED, StudyOptions, decide, names_of, read_options


def write(folder, text):
    path = folder / "study.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_options_come_from_a_file_and_what_is_given_directly_wins(tmp_path):
    path = write(tmp_path, 'metric = "auroc"\ntrials = 7\nbackbones = ["resnet18", "resnet50"]\n')
    options = read_options({"trials": 9}, path)
    assert (options.metric, options.trials) == ("auroc", 9)
    assert options.backbones == ("resnet18", "resnet50")


def test_names_may_be_separated_by_commas():
    options = read_options({"backbones": "resnet18, resnet50", "strategies": "fine_tuning"})
    assert options.backbones == ("resnet18", "resnet50")
    assert options.strategies == ("fine_tuning",)


@pytest.mark.parametrize(
    ("text", "names"), [(None, None), ("", ()), ("a", ("a",)), (" a ,, b,", ("a", "b"))]
)
def test_names_are_read_from_a_text(text, names):
    assert names_of(text) == names


def test_what_is_not_given_is_none_so_that_the_stored_study_can_decide():
    assert all(getattr(read_options({}), key) is None for key in FIXED)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("trials = 3\nepochs = = 4\n", "line 2"),
        ("trails = 3\n", "Unknown"),
        ("trails = 3\n", "trials"),
        ("trials = 0\n", "'trials'"),
        ('trials = "many"\n', "'trials'"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_place(tmp_path, content, said):
    path = write(tmp_path, content)
    with pytest.raises(UserError) as error:
        read_options({}, path)
    assert str(path) in str(error.value) and said in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_option_lists_every_known_one():
    with pytest.raises(UserError) as error:
        read_options({"learning_rate": 0.1})
    for name in StudyOptions.model_fields:
        assert name in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.toml"):
        read_options({}, tmp_path / "nowhere.toml")


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "study.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not valid TOML"):
        read_options({}, path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trials", 0),
        ("trials", -3),
        ("trials", 1.5),
        ("timeout", 0),
        ("timeout", float("nan")),
        ("timeout", float("inf")),
        ("epochs", 0),
        ("patience", -1),
        ("metric", "precision"),
        ("image_size", 16),
        ("image_size", 4096),
        ("seed", -1),
        ("seed", 2**32),
        ("weights", "imagenet21k"),
        ("sampler", "grid"),
        ("pruner", "hyperband"),
        ("precision", "fp8"),
        ("strategies", "frozen"),
        ("strategies", ""),
        ("backbones", ","),
        ("cache_limit", "2 pints"),
        ("cache_limit", "-1"),
        ("cache_limit", -1),
        ("cache_limit", True),
        ("cache_limit", float("inf")),
        ("name", "a/confirm"),
        ("name", ""),
        ("name", "a\nb"),
    ],
)
def test_a_bad_value_is_named_with_its_key_in_one_line(key, value):
    with pytest.raises(UserError) as error:
        read_options({key: value})
    message = str(error.value)
    assert f"'{key}" in message
    assert repr(value) in message or key == "backbones" or key == "strategies"
    assert "\n" not in message


@pytest.mark.parametrize("name", ["phantom", "chest_xray", "run-2.1", "two words", "Säule"])
def test_ordinary_names_are_allowed(name):
    assert read_options({"name": name}).name == name


@pytest.mark.parametrize(
    ("given", "stored", "suggested", "epochs"),
    [
        ({"epochs": 1}, {"epochs": 2}, {"epochs": 3}, 1),
        ({}, {"epochs": 2}, {"epochs": 3}, 2),
        ({}, {}, {"epochs": 3}, 3),
        ({}, {}, {"epochs": None}, DEFAULTS["epochs"]),
        ({}, {}, {}, DEFAULTS["epochs"]),
    ],
    ids=["given", "stored", "suggested", "nothing suggested", "default"],
)
def test_given_before_stored_before_suggested_before_default(given, stored, suggested, epochs):
    settings = decide(StudyOptions(**given), name="s", stored=stored, suggested=suggested)
    assert settings.epochs == epochs


@pytest.mark.parametrize("seed", [0, 5])
def test_a_stored_seed_is_kept_even_if_it_is_0(seed):
    options = StudyOptions()
    assert decide(options, name="s", stored={"seed": seed}, suggested={"seed": 9}).seed == seed


def test_a_seed_of_0_that_is_given_wins():
    assert decide(StudyOptions(seed=0), name="s", stored={"seed": 5}, suggested={}).seed == 0


def test_overrides_may_be_one_text_whose_commas_are_its_own():
    assert read_options({"set": "batch_size=8,16"}).set == ("batch_size=8,16",)
    assert read_options({"set": ["mixup=0.2", "dropout=0"]}).set == ("mixup=0.2", "dropout=0")


def test_no_file_may_ask_for_code_to_be_run(tmp_path):
    path = write(tmp_path, 'backbone_module = "nets.py"\n')
    with pytest.raises(UserError, match="give it as --backbone-module"):
        read_options({}, path)
    assert read_options({"backbone_module": "nets.py"}).backbone_module is not None


@pytest.mark.parametrize(
    ("given", "num_bytes"),
    [("2GB", 2 * 10**9), ("1 KiB", 1024), ("0", 0), (0, 0), (12345, 12345), (None, None)],
)
def test_a_limit_of_the_cache_is_read_in_bytes(given, num_bytes):
    assert read_options({"cache_limit": given}).cache_limit == num_bytes


@pytest.mark.parametrize("value", ['"3MB"', "3_000_000", "3e6"])
def test_a_file_may_give_a_limit_of_the_cache_as_text_or_number(tmp_path, value):
    path = write(tmp_path, f"cache_limit = {value}\n")
    assert read_options({}, path).cache_limit == 3_000_000


def test_a_limit_of_the_cache_is_not_what_a_study_is_created_with():
    assert "cache_limit" not in FIXED


def test_the_share_and_a_retry_may_come_from_a_file(tmp_path):
    options = read_options({}, write(tmp_path, 'share = "seconds"\nretry_failed = true\n'))
    assert (options.share, options.retry_failed) == ("seconds", True)
    settings = decide(options, name="s", stored={}, suggested={})
    assert settings.share == "seconds" and "share" in FIXED
    assert decide(StudyOptions(), name="s", stored={}, suggested={}).share == "trials"


def test_a_share_of_something_else_is_refused():
    with pytest.raises(UserError, match="share"):
        read_options({"share": "epochs"})
