"""A space is shown with its ranges, conditions, baselines and size."""

import json

import pytest
from rich.console import Console

from search_spaces import preset_names
from studies.errors import UserError
from studies.terminal.spaces import (
    look_at_space,
    presets_json,
    print_presets,
    print_space,
    space_json,
)


def shown(printing, *arguments):
    console = Console(width=80, highlight=False, no_color=True)
    with console.capture() as captured:
        printing(console, *arguments)
    return captured.get()


@pytest.mark.parametrize("name", preset_names())
def test_a_space_fits_80_columns_and_names_every_parameter_and_backbone(name):
    space = look_at_space({"space": name})
    text = shown(print_space, space)
    joined = " ".join(text.split())
    assert all(parameter.name in joined for parameter in space.parameters)
    assert all(backbone in joined for backbone in space.backbones)
    assert max(map(len, text.splitlines())) <= 80


def test_ranges_conditions_and_depths_are_words():
    joined = " ".join(shown(print_space, look_at_space({"space": "default"})).split())
    assert "learning_rate feature extraction 0.0001 to 0.1, logarithmic" in joined
    assert "learning_rate fine-tuning 0.0001 to 0.03, logarithmic" in joined
    assert "num_unfrozen_layers fine-tuning 1 to the backbone's depth" in joined
    assert "batch_size both 8, 16, 32, 64" in joined
    assert "times continuous learning_rate." in joined


def test_baselines_are_listed_with_the_backbone_they_run_on():
    text = shown(print_space, look_at_space({"space": "coursework"}))
    assert "Baselines, run beside what is sampled, on resnet18:" in text
    assert (
        "fine-tuning, learning_rate 1e-05, batch_size 32, num_unfrozen_layers 100% of the depth"
        in " ".join(text.split())
    )
    assert "18 configurations." in text


def test_a_strategy_that_is_left_out_takes_its_parameters_along():
    space = look_at_space({"space": "default", "strategies": ("feature_extraction",)})
    assert "num_unfrozen_layers" not in shown(print_space, space)


def test_combinations_are_counted_where_a_range_is_continuous():
    space = look_at_space(
        {"space": "default", "backbones": ("resnet18",), "set": ("num_unfrozen_layers=1,2,3",)}
    )
    # Four batch sizes for feature extraction, and the same with three depths for fine-tuning.
    assert space_json(space)["num_combinations"] == 4 + 4 * 3
    assert space_json(space)["size"] is None
    fixed = look_at_space({"space": "default", "set": ("learning_rate=1e-3,1e-4",)})
    assert space_json(fixed)["size"] == space_json(fixed)["num_combinations"] > 0


def test_every_preset_is_listed_and_can_be_written_as_json():
    text = shown(print_presets)
    assert all(name in text for name in preset_names())
    spaces = json.loads(json.dumps(presets_json(), allow_nan=False))["spaces"]
    assert [space["space"] for space in spaces] == list(preset_names())


def test_markup_in_a_name_is_shown_as_it_is(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "[red]x[/red]"\n[backbone]\nchoices = ["resnet18"]\n'
        '[strategy]\nchoices = ["feature_extraction"]\n'
        "[learning_rate]\nchoices = [0.1]\n[batch_size]\nchoices = [8]\n"
    )
    assert "Space [red]x[/red]" in shown(print_space, look_at_space({"space": str(path)}))


def test_a_backbone_of_unknown_depth_is_refused():
    with pytest.raises(ValueError, match=r"Unknown backbone 'resnet51'; .* timm:NAME"):
        look_at_space({"space": "default", "backbones": ("resnet51",)})


def test_options_without_a_space_are_refused():
    with pytest.raises(UserError, match="Name a space"):
        look_at_space({"set": ("batch_size=8",)})
