"""The acquisition: field of view, table, partial volume, noise of the reconstruction kernel and the 12-bit range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from hounsfield.phantom.canvas import AIR, Canvas, Placement, ellipse_distance
from hounsfield.phantom.fields import Float, Warp

LOWEST_HU = -1024
HIGHEST_HU = 3071
_LAYERS = 2
"""Thinner layers averaged into a slice: the partial volume along z."""


class Anatomy(Protocol):
    """What a region provides."""

    warp: Warp
    sex: str
    age: int
    back: float
    """y of the back's skin in mm, where the table is."""
    front: float
    """y of the front's skin in mm."""
    half_width: float
    """Half of the body's largest width in mm."""

    def extent(self, rng: np.random.Generator) -> tuple[float, float]:
        """Lowest and highest z in mm of a scan."""

    def paint(self, canvas: Canvas) -> Float:
        """Paint the slice and return the coverage of what the label marks (rows, columns)."""

    def labelled(self, z: float) -> bool:
        """Whether a slice at `z` can carry the label."""


@dataclass(frozen=True)
class Settings:
    """Settings of one scan; lengths in mm, `noise` in HU."""

    pixel: float
    thickness: float
    spacing: float
    first_z: float
    slices: int
    placement: Placement
    table_y: float
    noise: float
    kernel: str
    kvp: int
    vendor: int
    feet_first: bool
    descending: bool
    position: tuple[float, float, float]
    """DICOM coordinates in mm of the anatomy's origin."""


@dataclass(frozen=True)
class Scan:
    """`hu` int16 and `mask` uint8 0/1, both (slice, row, column) from inferior to superior, and how they were made."""

    hu: npt.NDArray[np.int16]
    mask: npt.NDArray[np.uint8]
    settings: Settings


_KERNELS = (("SOFT", 0.85, 1.0), ("STANDARD", 0.6, 1.25), ("DETAIL", 0.45, 1.6))


def plan(anatomy: Anatomy, rng: np.random.Generator, size: int, thickness: float) -> Settings:
    """Choose the settings of a scan of `anatomy`: everything that differs between patients but is not their body."""
    scale = (float(rng.uniform(0.92, 1.1)), float(rng.uniform(0.92, 1.08)))
    low, high = anatomy.extent(rng)
    spacing = round(thickness * float(rng.choice([1.0, 1.0, 1.0, 0.8])), 3)
    slices = max(3, round((high - low) / spacing))
    wide = 2 * anatomy.half_width * scale[0]
    field = float(np.clip(wide * rng.uniform(1.02, 1.22), 300, 500))
    pixel = round(field / size, 4)
    room = max(0.0, (field - wide) / 2)
    shift = (float(rng.uniform(-0.7, 0.7) * min(room, 25)), float(rng.uniform(-20, 28)))
    kernel = int(rng.integers(len(_KERNELS)))
    return Settings(
        pixel=pixel,
        thickness=thickness,
        spacing=spacing,
        first_z=low + float(rng.uniform(0, spacing)),
        slices=slices,
        placement=Placement(shift, float(np.radians(np.clip(rng.normal(0, 2.2), -6, 6))), scale),
        table_y=shift[1] + anatomy.back * scale[1],
        noise=float(rng.uniform(6.0, 14.0)) * _KERNELS[kernel][2] * float(np.sqrt(5.0 / max(thickness, 1.0)) ** 0.5),
        kernel=_KERNELS[kernel][0],
        kvp=int(rng.choice([100, 120, 120, 120, 140])),
        vendor=int(rng.integers(3)),
        feet_first=bool(rng.random() < 0.25),
        descending=bool(rng.random() < 0.6),
        position=(0.0, round(float(rng.uniform(-40, 10)), 1), round(float(rng.uniform(-900, 400)), 1)),
    )


def acquire(anatomy: Anatomy, settings: Settings, size: int, rng: np.random.Generator) -> Scan:
    """Scan `anatomy` into (slices, size, size)."""
    hu = np.empty((settings.slices, size, size), np.int16)
    mask = np.zeros(hu.shape, np.uint8)
    blur = next(width for name, width, _ in _KERNELS if name == settings.kernel)
    slab = settings.thickness / _LAYERS
    rows = _body_rows(anatomy, settings, size)
    outside = None
    for index in range(settings.slices):
        z = settings.first_z + index * settings.spacing
        image = np.full((size, size), AIR, np.float32)
        cover = np.zeros((size, size), np.float32)
        for layer in range(_LAYERS):
            height = z + (layer - (_LAYERS - 1) / 2) * slab
            canvas = Canvas(size, settings.pixel, height, slab, settings.placement, anatomy.warp, rows)
            cover[rows] += anatomy.paint(canvas) / _LAYERS
            image[rows] += (canvas.hu - AIR) / _LAYERS
        bed = Canvas(size, settings.pixel, z, slab)
        if outside is None:
            outside = np.hypot(bed.x, bed.y) > (size / 2) * settings.pixel
        _table(image, bed, settings)
        image += _noise(rng, size, blur / settings.pixel) * np.float32(settings.noise)
        image[outside] = LOWEST_HU
        hu[index] = np.clip(np.rint(image), LOWEST_HU, HIGHEST_HU)
        if anatomy.labelled(z):
            mask[index] = cover > 0.5
    return Scan(hu, mask, settings)


def _body_rows(anatomy: Anatomy, settings: Settings, size: int) -> slice:
    """The rows that the body can reach."""
    corners = np.array([(x, y) for x in (-1, 1) for y in (anatomy.front, anatomy.back)]) * (anatomy.half_width, 1)
    _, y = settings.placement.to_scanner(corners[:, 0], corners[:, 1])
    low, high = (np.array([y.min() - 12, y.max() + 12]) / settings.pixel + (size - 1) / 2).astype(int)
    return slice(max(int(low), 0), min(int(high) + 1, size))


def _noise(rng: np.random.Generator, size: int, blur: float) -> Float:
    """White noise through a band-pass like a reconstruction kernel's, of standard deviation 1."""
    white = rng.standard_normal((size, size), dtype=np.float32)
    fine = ndimage.gaussian_filter(white, max(blur, 0.4), mode="wrap", truncate=3)
    return np.asarray((fine - ndimage.uniform_filter(fine, 9, mode="wrap")) / max(float(fine.std()), 1e-6), np.float32)


def _table(image: Float, bed: Canvas, settings: Settings) -> None:
    """Add the curved table top below the back, in scanner coordinates, wherever there is air."""
    top = settings.table_y + 4
    radius = 420.0
    distance = -ellipse_distance(bed.x, bed.y, (0.0, top - radius), (radius, radius))
    inside = np.maximum(-distance, np.abs(bed.x) - 215)
    shell = np.abs(np.maximum(inside, -distance - 28) + 1.2) - 1.2
    air = np.clip((-700 - image) / 250, 0, 1)
    foam = bed.coverage(np.maximum(inside, -distance - 28)) * air
    image += foam * (np.float32(-930) - image)
    image += bed.coverage(shell) * air * (np.float32(10) - image) * (np.abs(bed.x) < 216)
    image[image < AIR] = AIR
