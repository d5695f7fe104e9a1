"""How many times as fast the backbones train in bfloat16 as in float32, all layers, side by side.

What `transfer.training.precision` decides by on each machine, here for longer: steps with random
weights, in turn, for --seconds of the processor, whatever else it does meanwhile.

    python benchmarks/precision.py --threads 2

prints a line for each backbone with the mean, its interval of 95 % and what `auto` makes of it,
for each of --sizes. --images 16 takes larger steps than `auto` does.
"""

import argparse
from collections.abc import Sequence

import torch
from rich.progress import track

from transfer.backbones.catalog import BACKBONES
from transfer.device import cpu_model
from transfer.training.precision import pays
from transfer.training.throughput import Speedup, measure_speedup


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES), choices=BACKBONES)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96, 224], help="in pixels")
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp16"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--images", type=int, help="of a step; default: as many as auto takes")
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    print(f"{cpu_model()}, {arguments.threads} threads, torch {torch.__version__}")
    print(f"{arguments.precision} against fp32, images of {arguments.sizes} pixels")
    for backbone in track(arguments.backbones, transient=True):
        speedups = [
            measure_speedup(
                backbone,
                arguments.precision,
                image_size=size,
                device=torch.device("cpu"),
                num_images=arguments.images,
                max_seconds=arguments.seconds,
            )
            for size in arguments.sizes
        ]
        print(f"{backbone:20} {'  '.join(map(_told, speedups))}", flush=True)


def _told(speedup: Speedup) -> str:
    chosen = "half" if pays(speedup) else "fp32"
    return f"{speedup.value:.2f} [{speedup.low:.2f}, {speedup.high:.2f}] {chosen}"


if __name__ == "__main__":
    main()
