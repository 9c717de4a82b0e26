"""One L3 slice of a synthetic abdomen and the true areas on it.

A pixel belongs to a tissue when, before noise, its mixed attenuation lies in the tissue's range and at least half of it
was painted as that part of the body.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hounsfield.phantom.abdomen import Abdomen
from hounsfield.phantom.canvas import Canvas
from hounsfield.phantom.cohort import prepare
from hounsfield.phantom.scanner import acquire
from hounsfield.phantom.spine import L3, Bone

TISSUES = ("other", "skin", "subcutaneous", "muscle", "intermuscular", "visceral")


class Shares(Canvas):
    """A canvas that also keeps, for every pixel, the share of each of `TISSUES` in it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.shares = np.zeros((len(TISSUES), *self.shape), np.float32)
        self.names: list[str] = []

    @contextmanager
    def painting(self, *names: str) -> Iterator[None]:
        """The following strokes have these tissues in turn, the last one again and again."""
        self.names = list(names)
        yield
        self.names = []

    def blend(self, alpha: Any, hu: Any, box: tuple[slice, slice] | None = None) -> None:
        super().blend(alpha, hu, box)
        where = (slice(None), *(box or (slice(None), slice(None))))
        name = "other"
        if self.names:
            name = self.names.pop(0) if len(self.names) > 1 else self.names[0]
        if name == "by value":
            name = "muscle" if float(np.mean(hu)) > 30 else "retroperitoneal"
        target = self.shares[where]
        if name == "retroperitoneal":  # a seam within muscle, a margin of the psoas within the cavity
            wall = target[3] + target[4]
            target *= 1 - alpha
            target[4] += alpha * np.minimum(wall, 1)
            target[5] += alpha * (1 - np.minimum(wall, 1))
            return
        target *= 1 - alpha
        target[TISSUES.index(name)] += alpha


@dataclass(frozen=True)
class Truth:
    """`hu` int16 (rows, columns), `spacing` (row, column) in mm, true `areas` in cm2 and their `masks`."""

    hu: npt.NDArray[np.int16]
    spacing: tuple[float, float]
    areas: dict[str, float]
    masks: dict[str, npt.NDArray[np.bool_]]


def l3_slice(number: int, seed: int = 0, size: int = 512, bone: Bone | None = None) -> Truth:
    """The middle slice of L3 of patient `number` of the cohort `seed`, with bone of another attenuation if given."""
    anatomy, settings = prepare("abdomen", number, seed, size)
    assert isinstance(anatomy, Abdomen)
    anatomy.spine.bone = bone or anatomy.spine.bone
    z = float(np.mean(anatomy.spine.body_span(L3)))
    settings = replace(settings, slices=1, first_z=z)
    hu = acquire(anatomy, settings, size, np.random.default_rng([seed, number])).hu[0]
    total, clean = np.zeros((len(TISSUES), size, size), np.float32), np.zeros((size, size), np.float32)
    slab = settings.thickness / 2
    for height in (z - slab / 2, z + slab / 2):
        canvas = Shares(size, settings.pixel, height, slab, settings.placement, anatomy.warp)
        Abdomen.paint(_Traced(anatomy), canvas)  # type: ignore[arg-type]
        total += canvas.shares / 2
        clean += canvas.hu / 2
    share = dict(zip(TISSUES, total, strict=True))
    fat, lean = (clean >= -190) & (clean <= -30), (clean > -30) & (clean <= 150)
    wall = share["muscle"] + share["intermuscular"] >= 0.5
    masks = {
        "body": total.sum(axis=0) >= 0.5,
        "subcutaneous": fat & (share["subcutaneous"] >= 0.5),
        "visceral": fat & (share["visceral"] >= 0.5),
        "intermuscular": fat & wall,
        "muscle": lean & wall,
    }
    masks["adipose"] = masks["subcutaneous"] | masks["visceral"] | masks["intermuscular"]
    areas = {name: float(mask.sum()) * settings.pixel**2 / 100 for name, mask in masks.items()}
    return Truth(hu, (settings.pixel, settings.pixel), areas, masks)


class _Traced:
    """An abdomen whose parts say what they paint."""

    def __init__(self, anatomy: Abdomen) -> None:
        self._anatomy = anatomy
        self.wall = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._anatomy, name)

    def paint(self, canvas: Shares, *rest: Any) -> None:
        # the wall's strokes, then the one that Abdomen.paint itself does: the cavity's fat
        canvas.names = ["skin", "subcutaneous", "muscle", "intermuscular", "visceral", "other"]
        self._anatomy.wall.paint(canvas, *rest)

    def _front_wall(self, canvas: Shares, level: float) -> None:
        with canvas.painting("intermuscular"):
            self._anatomy._front_wall(canvas, level)

    def _muscles(self, canvas: Shares, level: float) -> None:
        with canvas.painting("by value"):
            self._anatomy._muscles(canvas, level)
