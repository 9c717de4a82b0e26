"""Images per second of a training step by precision and memory layout, and of feeding it.

python benchmarks/training_step.py [--size 128] [--batch 16] [--repeats 5]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from hounsfield import models
from hounsfield.data.arrow import write_slices
from hounsfield.data.slice_set import KIND, SEGMENTATION, VERSION, SliceIndex, SliceSet, write_index
from hounsfield.losses import WeightedCrossEntropy, build_loss
from hounsfield.storage import write_manifest
from hounsfield.training.batches import Batches
from hounsfield.windowing import MEDIASTINAL

NETWORKS = {
    "U-Net 16..128, batch norm": ("unet", {"base_channels": 16, "depth": 4, "batch_norm": True}),
    "ResNet18": ("resnet18", {}),
}
MODES = {
    "fp32": (False, torch.contiguous_format),
    "fp32 channels-last": (False, torch.channels_last),
    "bf16": (True, torch.contiguous_format),
    "bf16 channels-last": (True, torch.channels_last),
}


def training_step(
    architecture: str, options: Mapping[str, object], images: torch.Tensor, bf16: bool, layout: torch.memory_format
) -> Callable[[], None]:
    network = models.build(architecture, **options).to(memory_format=layout)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(network.parameters(), fused=True)
    segments = architecture == "unet"
    loss = build_loss("cl") if segments else WeightedCrossEntropy()
    target = torch.rand(len(images), *(images.shape[2:] if segments else ())) < 0.1

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = network(images)
        loss(logits, target).backward()
        optimiser.step()

    return step


def medians(steps: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each, interleaved, after one warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def feeding(size: int, batch: int, repeats: int) -> None:
    """Gathering batches from the memory map beside a torch DataLoader over the same file."""
    count = 8 * batch
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = np.random.default_rng(0).integers(0, 255, (count, size, size), dtype=np.uint8)
        write_slices(folder / "images.arrow", {"image": images, "mask": (images > 250).astype(np.uint8)})
        write_index(folder, [SliceIndex("p", "s", i, 5.0 * i, 5, 1, 1, "train", 0, 1) for i in range(count)])
        write_manifest(
            folder, KIND, VERSION, task=SEGMENTATION, window=MEDIASTINAL.to_dict(), size=[size, size],
            dataset_hash="", hash="",
        )  # fmt: skip
        slices = SliceSet(folder)

        class Items(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
            def __len__(self) -> int:
                return count

            def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
                image = torch.from_numpy(slices.image(row).astype(np.float32) / 255)
                return image[None], torch.from_numpy(slices.mask(row).copy())

        loader = torch.utils.data.DataLoader(Items(), batch, shuffle=True)
        ours = Batches(folder, range(count), batch, seed=0)
        stored, floats = torch.from_numpy(images), torch.empty(images.shape)
        result = medians(
            {
                "limit: cast to float32": lambda: floats.copy_(stored),
                "hounsfield": lambda: [None for _ in ours],
                "Dataset and DataLoader": lambda: [None for _ in loader],
            },
            repeats,
        )
    print(f"\nFeeding {count} slices of {size}x{size} with masks")
    for name, seconds in result.items():
        print(f"{name:28} {count / seconds:10.0f} slices/s {result['Dataset and DataLoader'] / seconds:6.2f} x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    images = torch.rand(arguments.batch, 1, arguments.size, arguments.size)
    for title, (architecture, options) in NETWORKS.items():
        steps = {name: training_step(architecture, options, images, *mode) for name, mode in MODES.items()}
        result = medians(steps, arguments.repeats)
        print(f"\n{title}, {arguments.batch} x {arguments.size}x{arguments.size}")
        for name, seconds in result.items():
            print(f"{name:28} {arguments.batch / seconds:10.1f} images/s {result['fp32'] / seconds:6.2f} x")
    feeding(512, 30, arguments.repeats)


if __name__ == "__main__":
    main()
