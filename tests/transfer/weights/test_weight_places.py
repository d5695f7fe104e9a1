"""The caches and servers of others: looked into, asked once and quickly, never with a token."""

import io
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import pytest
import torch

from transfer.backbones.find import find_backbone
from transfer.backbones.table import TABLE, Backbone
from transfer.weights import places as weight_places
from transfer.weights.find import WeightsNotFoundError, find_weights, weights_hint
from transfer.weights.places import downloads, file_name, local_places

REPOSITORY = "timm/test_vit.r160_in1k"
NAME = "timm:test_vit"


class FakeHub:
    """Stands in for huggingface_hub: a cache folder, and a server that may be there."""

    def __init__(self, folder: Path) -> None:
        self.constants = SimpleNamespace(HF_HUB_CACHE=str(folder))
        self.cached: Path | None = None
        self.asked: list[dict[str, object]] = []
        self.folder = folder

    def try_to_load_from_cache(self, repository, file):
        assert (repository, file) == (REPOSITORY, "model.safetensors")
        return str(self.cached) if self.cached else object()

    def hf_hub_url(self, repository, file):
        return f"https://hub/{repository}/{file}"

    def hf_hub_download(self, repository, file, **settings):
        self.asked.append(settings)
        path = self.folder / file
        path.write_bytes(b"weights")
        return str(path)


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """An empty cache, and no network."""
    pytest.importorskip("timm")
    fake = FakeHub(tmp_path)
    monkeypatch.setattr(weight_places, "_hugging_face", lambda: fake)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    return fake


def unreachable(request, timeout):
    assert timeout == 10.0
    raise URLError("no route\nto host")


def test_the_cache_of_hugging_face_is_looked_into(hub, tmp_path):
    hub.cached = tmp_path / "cached.safetensors"
    hub.cached.write_bytes(b"weights")
    found = find_weights(NAME)
    assert (found.path, found.source) == (hub.cached, "Hugging Face cache")
    assert weights_hint(NAME) == "Hugging Face cache"


def test_a_download_from_hugging_face_sends_no_token_and_waits_ten_seconds(
    hub, monkeypatch, tmp_path
):
    monkeypatch.setattr(urllib.request, "urlopen", lambda request, timeout: io.BytesIO())
    found = find_weights(NAME)
    assert (found.path, found.source) == (tmp_path / "model.safetensors", "download")
    assert hub.asked == [{"etag_timeout": 10.0, "token": False}]


def test_without_network_the_message_says_what_was_tried_and_the_ways_out(hub, tmp_path):
    with pytest.raises(WeightsNotFoundError) as error:
        find_weights(NAME, weights_dir=tmp_path)
    assert hub.asked == []
    message = str(error.value)
    assert message.startswith(
        f"No ImageNet weights for backbone '{NAME}'; tried "
        f"weights folder ({tmp_path}/test_vit.safetensors), "
        f"weights folder ({tmp_path}/test_vit.pth), "
        f"Hugging Face cache ({tmp_path}/models--timm--test_vit.r160_in1k), "
        f"download of {REPOSITORY}/model.safetensors "
        "(URLError: <urlopen error no route to host>). "
        "Give --weights-dir DIR with test_vit.safetensors or test_vit.pth, "
    )
    assert message.endswith("or use --weights random as a control.")


def test_nothing_is_downloaded_where_it_is_not_allowed(hub):
    with pytest.raises(WeightsNotFoundError, match=r"download \(not allowed\)"):
        find_weights(NAME, allow_download=False)
    assert hub.asked == []


@pytest.mark.parametrize(
    ("url", "prefix"),
    [
        ("https://server/resnet18-f37072fd.pth", "f37072fd"),
        ("https://server/vit_small-224.pth", None),
        ("https://server/plain.pth", None),
    ],
)
def test_a_hash_in_the_name_of_a_file_is_checked(monkeypatch, url, prefix):
    seen = []

    def download(url, path, hash_prefix, progress):
        seen.append(hash_prefix)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    ((what, get),) = downloads(Backbone(**{**vars(TABLE["resnet18"]), "url": url}))
    assert what == url
    assert get().name == url.rpartition("/")[2]
    assert seen == [prefix]


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("resnet18", "resnet18"),
        ("torchvision:resnet18", "resnet18"),
        ("timm:test_vit.r160_in1k", "test_vit.r160_in1k"),
    ],
)
def test_files_in_a_weights_folder_go_by_the_name_without_its_library(tmp_path, name, short):
    backbone = find_backbone(name)
    assert file_name(backbone) == short
    assert local_places(backbone, tmp_path)[:2] == [
        ("weights folder", tmp_path / f"{short}.safetensors"),
        ("weights folder", tmp_path / f"{short}.pth"),
    ]
