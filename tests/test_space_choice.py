"""The space is the named one, narrowed and overridden, with one's own backbones beside its own."""

import pytest

from studies.settings import read_options
from studies.spaces import chosen_space
from transfer.backbones.catalog import BACKBONES


def chosen(own=(), **given):
    return chosen_space(read_options(given), own=own)


def test_without_options_it_is_the_default():
    assert chosen().name == "default"
    assert chosen_space(read_options({}), default="demo").name == "demo"


def test_it_is_narrowed_then_overridden():
    space = chosen(backbones="mobilenet_v2", strategies="fine_tuning", set="batch_size=16")
    assert (space.backbones, space.strategies) == (("mobilenet_v2",), ("fine_tuning",))
    assert next(p.choices for p in space.parameters if p.name == "batch_size") == (16,)
    assert len(space.baselines) == 2


def test_backbones_of_the_users_stand_beside_the_spaces_unless_some_are_named(monkeypatch):
    monkeypatch.setitem(BACKBONES, "my_net", BACKBONES["resnet18"])
    assert chosen(own=("my_net",)).backbones == (*chosen().backbones, "my_net")
    assert chosen(own=("my_net",), backbones="my_net").backbones == ("my_net",)


@pytest.mark.parametrize("given", [{"backbones": "resnet51"}, {"set": "batch_size=0"}])
def test_what_is_wrong_is_refused(given):
    with pytest.raises(ValueError, match=r"resnet51|batch_size"):
        chosen(**given)
