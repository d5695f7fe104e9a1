"""How many times as fast the backbones train in bfloat16 as in float32, all layers, side by side.

What `transfer.precision.BF16_PAYS_ON_CPU` is taken from: steps of 16 images with random weights,
in turn, the median of --steps of each.

    python benchmarks/precision.py --threads 2

prints a line for each backbone with a number for each of --sizes.
"""

import argparse
from collections.abc import Sequence

import torch
from rich.progress import track

from transfer.catalog import BACKBONES
from transfer.device import cpu_model
from transfer.throughput import BATCH_SIZE, measure_speedup


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES), choices=BACKBONES)
    parser.add_argument("--sizes", type=int, nargs="+", default=[48, 96, 224], help="in pixels")
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp16"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=5)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    print(f"{cpu_model()}, {arguments.threads} threads, torch {torch.__version__}")
    print(f"{arguments.precision} against fp32, {BATCH_SIZE} images of {arguments.sizes} pixels")
    for backbone in track(arguments.backbones, transient=True):
        speedups = [
            measure_speedup(
                backbone,
                arguments.precision,
                image_size=size,
                device=torch.device("cpu"),
                num_images=BATCH_SIZE,
                num_steps=arguments.steps,
            )
            for size in arguments.sizes
        ]
        print(f"{backbone:20} {'  '.join(f'{speedup:5.2f}' for speedup in speedups)}", flush=True)


if __name__ == "__main__":
    main()
