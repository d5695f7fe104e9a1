"""The script that one would write instead, after PyTorch's transfer learning tutorial.

Every epoch decodes every image and runs the whole network, in float32; the best weights are kept
by copy. It is written to be as fast as such a script gets: inference mode in validation, workers
that stay alive, no gradient below the layers that train, and frozen layers in eval mode, which is
faster than the tutorial's train mode (and right: BatchNorm doesn't move). Knows nothing of this
project, so that `engine.py` has something to be held against.

    python benchmarks/usual_script.py --data DIR --weights-dir DIR --unfrozen 4 --epochs 2

DIR holds train/CLASS/ folders; a fifth of the images, or what --split names, validates. Prints a
line of JSON an epoch. With --step each epoch waits for a line on standard input.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import MobileNetV2, mobilenet_v2

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch with its validation; building the network, once a training, is ``startup``.

    The first epoch holds the start of the workers.
    """

    seconds: float
    startup_seconds: float
    val_accuracy: float


def image_folder(data: Path, image_size: int) -> ImageFolder:
    """The training images of a data set: decoded, resized and normalised whenever asked for."""
    transform = transforms.Compose(
        [
            transforms.Resize((image_size, image_size)),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    return ImageFolder(data / "train", transform)


def linked_subset(data: Path, num_images: int, folder: Path) -> Path:
    """Links in ``folder`` to so many training images, and to the same share of test images."""
    share = num_images / sum(1 for path in (data / "train").glob("*/*"))
    for class_folder in sorted((*data.glob("train/*/"), *data.glob("test/*/"))):
        target = folder / class_folder.relative_to(data)
        target.mkdir(parents=True)
        names = sorted(path.name for path in class_folder.iterdir())
        drawn = np.random.default_rng(0).permutation(names)[: round(share * len(names))]
        for name in drawn.tolist():
            (target / name).symlink_to(class_folder.resolve() / name)
    return folder


def stratified_halves(
    targets: Sequence[int], val_share: float = 0.2, seed: int = 0
) -> tuple[list[int], list[int]]:
    """Indices of training and validation images, each class at its own rate."""
    rng, train, val = np.random.default_rng(seed), [], []
    for label in sorted(set(targets)):
        shuffled = rng.permutation(np.flatnonzero(np.equal(targets, label))).tolist()
        num_val = max(1, round(val_share * len(shuffled)))
        val += shuffled[:num_val]
        train += shuffled[num_val:]
    return train, val


def transfer_network(weights_dir: Path, num_unfrozen: int, num_classes: int) -> MobileNetV2:
    """MobileNetV2 with ImageNet weights and a new classifier; the last layers train."""
    network = mobilenet_v2()
    weights = load_file(weights_dir / "mobilenet_v2.safetensors")
    missing, unknown = network.load_state_dict(weights, strict=False)
    assert not [key for key in (*missing, *unknown) if not key.startswith("classifier")]
    network.requires_grad_(False)
    for layer in trained_layers(network, num_unfrozen):
        layer.requires_grad_(True)
    network.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, num_classes))
    return network


def trained_layers(network: MobileNetV2, num_unfrozen: int) -> nn.Sequential:
    return network.features[len(network.features) - num_unfrozen :]


def train(
    dataset: ImageFolder,
    train_indices: Sequence[int],
    val_indices: Sequence[int],
    *,
    weights_dir: Path,
    num_unfrozen: int,
    learning_rate: float,
    batch_size: int = 32,
    num_workers: int = 2,
    epochs: int = 10,
) -> Iterator[Epoch]:
    """Train for ``epochs``, giving each as it ends; what the caller does in between is not timed.

    The generator returns the network with the weights of its best epoch.
    """
    started = perf_counter()
    torch.manual_seed(0)
    network = transfer_network(weights_dir, num_unfrozen, len(dataset.classes))
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=learning_rate, weight_decay=0.01)
    options = {
        "batch_size": batch_size,
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
    }
    train_loader = DataLoader(Subset(dataset, train_indices), shuffle=True, **options)
    val_loader = DataLoader(Subset(dataset, val_indices), **options)
    best_accuracy, best_weights = -1.0, network.state_dict()
    startup_seconds, started = perf_counter() - started, perf_counter()
    for _ in range(epochs):
        train_epoch(network, num_unfrozen, train_loader, optimizer)
        accuracy = val_accuracy(network, val_loader)
        if accuracy > best_accuracy:
            best_accuracy, best_weights = accuracy, deepcopy(network.state_dict())
        yield Epoch(
            seconds=perf_counter() - started,
            startup_seconds=startup_seconds,
            val_accuracy=accuracy,
        )
        started = perf_counter()
    network.load_state_dict(best_weights)
    return network


def train_epoch(
    network: MobileNetV2, num_unfrozen: int, loader: DataLoader, optimizer: torch.optim.Optimizer
) -> None:
    network.eval()
    trained_layers(network, num_unfrozen).train()
    network.classifier.train()
    for images, labels in loader:
        optimizer.zero_grad(set_to_none=True)
        loss = cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()


@torch.inference_mode()
def val_accuracy(network: MobileNetV2, loader: DataLoader) -> float:
    network.eval()
    num_correct = sum((network(x).argmax(1) == labels).sum().item() for x, labels in loader)
    return num_correct / len(loader.dataset)


def named_halves(
    dataset: ImageFolder, folder: Path, names: Mapping[str, Sequence[str]]
) -> tuple[list[int], list[int]]:
    """Indices of training and validation images by their paths below ``folder``."""
    index_of = {Path(path): i for i, (path, _) in enumerate(dataset.samples)}
    train, val = ([index_of[folder / name] for name in names[part]] for part in ("train", "val"))
    return train, val


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights-dir", type=Path, required=True)
    parser.add_argument("--unfrozen", type=int, default=4, help="last layers that train, of 19")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--split", type=Path, help='JSON: {"train": [paths], "val": [paths]}')
    parser.add_argument("--step", action="store_true", help="wait for a line before each epoch")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    dataset = image_folder(arguments.data, arguments.image_size)
    halves = (
        stratified_halves(dataset.targets)
        if arguments.split is None
        else named_halves(dataset, arguments.data, json.loads(arguments.split.read_text()))
    )
    epochs = train(
        dataset,
        *halves,
        weights_dir=arguments.weights_dir,
        num_unfrozen=arguments.unfrozen,
        learning_rate=arguments.learning_rate,
        batch_size=arguments.batch_size,
        num_workers=arguments.workers,
        epochs=arguments.epochs,
    )
    for _ in range(arguments.epochs):
        if arguments.step and not sys.stdin.readline():
            return  # Whoever asked has gone.
        print(json.dumps(asdict(next(epochs))), flush=True)


if __name__ == "__main__":
    main()
