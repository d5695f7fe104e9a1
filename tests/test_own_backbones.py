"""One's own code is run when its file is given, announced, and known again."""

import pytest

import studies
from studies.backbone_module import check_stored, run_module
from studies.errors import UserError
from studies.terminal.progress import LineProgress
from transfer.backbones.find import find_backbone

SOURCE = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1))

BACKBONES = {"announced_net": build}
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "my_nets.py"
    path.write_text(SOURCE, encoding="utf-8")
    return path


def test_a_file_is_announced_before_it_is_run_and_its_backbones_are_known(own, capsys):
    own.write_text(SOURCE + "import sys; print('run', file=sys.stderr)", encoding="utf-8")
    found = run_module(own, LineProgress().message)
    announced, run = capsys.readouterr().err.splitlines()
    assert announced == f"Running the code in {own}, for its backbones." and run == "run"
    assert found.names == ("announced_net",)
    assert find_backbone("announced_net").spec.depth == 2


def test_a_file_that_is_not_there_is_refused_and_nothing_is_announced(tmp_path, capsys):
    with pytest.raises(UserError, match=r"No file .*nowhere\.py; --backbone-module takes"):
        run_module(tmp_path / "nowhere.py", LineProgress().message)
    assert capsys.readouterr().err == ""


def test_the_same_file_is_known_again_wherever_it_lies(own, tmp_path):
    stored = run_module(own, LineProgress().message).as_json()
    moved = own.rename(tmp_path / "moved.py")
    check_stored(stored, moved, "s")


def test_a_changed_file_and_none_are_refused(own):
    stored = run_module(own, LineProgress().message).as_json()
    with pytest.raises(UserError, match=r"Study 's' has backbones from .* give --backbone-module"):
        check_stored(stored, None, "s")
    own.write_text(SOURCE + "# changed", encoding="utf-8")
    with pytest.raises(UserError, match="has changed since the study was created"):
        check_stored(stored, own, "s")


def test_a_study_without_own_backbones_asks_for_nothing(own):
    check_stored(None, None, "s")
    check_stored(None, own, "s")


def run(tmp_path, backbone, **given):
    """A whole small study of one backbone; the strategies of its complete trials."""
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    studies.run(
        name="s",
        data="phantom:train=30,test=10,size=32",
        backbones=(backbone,),
        image_size=32,
        trials=5,
        epochs=1,
        confirm=False,
        storage=storage,
        cache_dir=tmp_path / "cache",
        **given,
    )
    table = studies.trials("s", storage)
    return set(table[table["state"] == "COMPLETE"]["strategy"])


BOTH = {"feature_extraction", "fine_tuning"}


def test_a_study_of_ones_own_backbone_runs_with_the_weights_it_brings(tmp_path, own):
    assert run(tmp_path, "announced_net", backbone_module=own) == BOTH


def test_a_study_of_a_timm_network_runs(tmp_path):
    pytest.importorskip("timm", reason="needs timm (extra: timm)")
    assert run(tmp_path, "timm:test_resnet", weights="random") == BOTH


def test_a_study_of_a_torchvision_network_that_is_not_in_the_table_runs(tmp_path):
    assert run(tmp_path, "torchvision:shufflenet_v2_x0_5", weights="random") == BOTH
