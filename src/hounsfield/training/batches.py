"""Batches of a slice set, gathered from its memory map into buffers that are used again for every batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from hounsfield.data.slice_set import SEGMENTATION, SliceSet
from hounsfield.errors import InputError
from hounsfield.training.augment import one_of_four, small_affine, warp

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Sampling:
    """Which training slices an epoch has.

    `oversampling` r adds r x (slices without label) augmented slices with label, each by one of rotation, translation,
    shear and reflection. `negatives_per_positive` limits the slices without label to that many for each one with,
    drawn anew every epoch (None: all of them). `augment` gives every slice a small random affine map.
    """

    oversampling: float = 0.0
    negatives_per_positive: float | None = None
    augment: bool = False


class Batches:
    """The batches of one epoch; iterate again for the next one, after setting `epoch`.

    The order is a function of (seed, epoch) alone. Slices are divided into batches of nearly equal size, at most
    `batch_size`; with `world` processes each takes its share of every batch. Iterating yields images (N, 1, H, W)
    float32 in [0, 1] and the target: masks (N, H, W) uint8 for segmentation, (N,) uint8 for slice detection. Both are
    overwritten by the next batch.
    """

    def __init__(
        self,
        slices: Path,
        rows: Sequence[int],
        batch_size: int,
        seed: int | None = None,
        sampling: Sampling | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """`seed` None keeps the order of `rows` and samples nothing (validation)."""
        self.path, self.rows, self.seed, self.sampling = slices, np.asarray(rows), seed, sampling or Sampling()
        self.rank, self.world, self.epoch = rank, world, 0
        self.positive = np.array([self.slices.index[row].positive for row in rows], dtype=bool)
        positives, negatives = int(self.positive.sum()), int((~self.positive).sum())
        self._added = round(self.sampling.oversampling * negatives)
        self._kept = negatives
        if self.sampling.negatives_per_positive is not None:
            self._kept = min(negatives, round(self.sampling.negatives_per_positive * positives))
        if self._added and not positives:
            raise InputError("over-sampling needs at least one training slice with a label: this slice set has none")
        self.count = positives + self._kept + self._added
        if self.count == 0:
            raise InputError("no slice is left to train on: check the splits of the slice set and the sampling")
        self._batches = max(1, -(-self.count // batch_size))
        if seed is not None and self.count // self._batches < world:
            raise InputError(
                f"{self.count} slices in batches of {batch_size} cannot be shared by {world} devices: "
                "use a larger batch size or fewer devices"
            )
        size = -(-self.count // self._batches)
        self._stored = np.empty((size, *self.slices.shape), dtype=self.slices.window.dtype)
        self._images = torch.empty((size, 1, *self.slices.shape))
        self._masks = np.empty((size, *self.slices.shape), dtype=np.uint8)

    @cached_property
    def slices(self) -> SliceSet:
        return SliceSet(self.path)

    def __len__(self) -> int:
        return self._batches

    def order(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of this epoch in order, and for each whether it is an added one that over-sampling augments."""
        if self.seed is None:
            return self.rows, np.zeros(len(self.rows), dtype=bool)
        random = np.random.default_rng([self.seed, self.epoch])
        positives, negatives = self.rows[self.positive], self.rows[~self.positive]
        if self._kept < len(negatives):
            negatives = random.choice(negatives, self._kept, replace=False)
        added = random.choice(positives, self._added) if self._added else positives[:0]
        rows = np.concatenate([positives, negatives, added])
        is_added = np.arange(len(rows)) >= len(rows) - len(added)
        shuffle = random.permutation(len(rows))
        return rows[shuffle], is_added[shuffle]

    def __iter__(self) -> Iterator[Batch]:
        return self.since(0)

    def since(self, first: int) -> Iterator[Batch]:
        """The batches of this epoch from number `first` on, exactly as in a whole epoch; no pixel of those before is
        read."""
        rows, added = self.order()
        parts = np.array_split(np.arange(len(rows)), self._batches)
        for number, part in enumerate(parts[first:], start=first):
            share = np.array_split(part, self.world)[self.rank]
            random = np.random.default_rng([self.seed or 0, self.epoch, number, self.rank])
            yield self._load(rows[share], added[share], random)

    def _load(self, rows: np.ndarray, added: np.ndarray, random: np.random.Generator) -> Batch:
        count = len(rows)
        stored = torch.from_numpy(self.slices.gather("image", list(rows), self._stored[:count]))
        images = self._images[:count]
        images[:, 0].copy_(stored)
        if stored.dtype == torch.uint8:
            images.div_(255)
        segmentation = self.slices.task == SEGMENTATION
        if segmentation:
            target = torch.from_numpy(self.slices.gather("mask", list(rows), self._masks[:count]))
        else:
            target = torch.tensor([self.slices.index[row].positive for row in rows], dtype=torch.uint8)
        chosen = np.arange(count) if self.sampling.augment and self.seed is not None else np.flatnonzero(added)
        if len(chosen):
            where = torch.from_numpy(chosen)
            maps = small_affine(count, random)[where] if self.sampling.augment else one_of_four(len(chosen), random)
            images[where] = warp(images[where], maps, "bilinear")
            if segmentation:
                warped = warp(target[where][:, None].float(), maps, "nearest")
                target[where] = warped[:, 0].to(torch.uint8)
        return images, target
