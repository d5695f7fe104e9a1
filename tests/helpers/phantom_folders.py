"""Phantoms as folders of pictures."""

from pathlib import Path

from PIL import Image

from transfer.data.sources.phantom import class_names, parse_phantom, phantom_images


def write_folder(root: Path, source: str) -> None:
    """Write a phantom as a folder of PNG files."""
    spec = parse_phantom(source)
    for split in ("train", "test"):
        images, labels = phantom_images(spec, split)
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = root / split / class_names(spec)[label] / f"{i:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
