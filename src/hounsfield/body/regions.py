"""Where things are on an axial abdominal slice: body, spine, the two boundaries of the abdominal wall, psoas.

Every mask is bool (rows, columns), rows from front to back and columns from the patient's right to left, on a grid of
square pixels of `pitch` mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import measure, morphology, segmentation

Mask = npt.NDArray[np.bool_]
Image = npt.NDArray[Any]

ANGLES = 720
"""Directions of the unrolled wall, from the front over the patient's left to the back and round."""
DEPTH_STEP = 0.5
"""Steps in mm of the depth below the wall's outer boundary."""
_THINNEST, _THICKEST = 4.0, 90.0
_SKIN = 3.5
_BODY_DEPTH = 36.0
"""Depth in mm of a lumbar vertebral body; what hangs together with it further back is arch and canal."""
_ARCH = 16.0
"""Depth in mm behind the vertebral body within which the inner boundary crosses the spine."""
_PROMINENCE = 1.0
"""Least height in mm of a peak of the distance to the outside over the neck to the next one: two muscles, not one."""
_BONE = (165.0, 140.0, 120.0, 100.0)
"""HU above which pixels are taken for bone, the first at which a vertebral body appears: spongy bone fades with age."""
_CANAL = 55.0
"""HU above what the spinal canal has and below what spongy bone has."""
_FAT_COST, _DEPTH_COST = 0.05, 0.008
"""Cost per mm of fat or gas beyond 3 mm, and of any tissue at the front, between the wall's boundaries."""


@dataclass(frozen=True)
class Spine:
    """`mask`: bone and canal. `body`: rows and columns (first, last) of the vertebral body, in pixels."""

    mask: Mask
    body: tuple[float, float, float, float]

    @property
    def middle(self) -> float:
        return (self.body[2] + self.body[3]) / 2


def regions_of(labels: npt.NDArray[Any]) -> list[Any]:
    """scikit-image's measures of the labelled regions."""
    return list(measure.regionprops(labels))  # type: ignore[no-untyped-call]


def dilate(mask: Mask, radius: float, pitch: float) -> Mask:
    """`mask` and everything within `radius` mm of it."""
    return np.asarray(ndimage.distance_transform_edt(~mask) * pitch <= radius) if mask.any() else mask.copy()


def erode(mask: Mask, radius: float, pitch: float) -> Mask:
    """The part of `mask` more than `radius` mm from its outside; the image's edge counts as outside."""
    return np.asarray(ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1] * pitch > radius)


def opened(mask: Mask, radius: float, pitch: float) -> Mask:
    return dilate(erode(mask, radius, pitch), radius, pitch)


def closed(mask: Mask, radius: float, pitch: float) -> Mask:
    wide = int(np.ceil(radius / pitch)) + 2
    return erode(dilate(np.pad(mask, wide), radius, pitch), radius, pitch)[wide:-wide, wide:-wide]


def largest(mask: Mask) -> Mask:
    labels, count = ndimage.label(mask)
    if not count:
        return mask
    return np.asarray(labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:])))


def find_body(hu: Image, pitch: float) -> Mask:
    """The largest connected part above -500 HU after an opening by 4 mm (table and arms go), with its holes filled."""
    dense = ndimage.gaussian_filter(hu, 0.7 / pitch) > -500
    core = largest(erode(np.asarray(ndimage.binary_fill_holes(dense)), 4.0, pitch))
    return np.asarray(ndimage.binary_fill_holes(dense & dilate(core, 4.5, pitch)))


def find_spine(smooth: Image, body: Mask, pitch: float) -> Spine | None:
    """The bone nearest to the body's midline in its back half, with the canal; None when there is none."""
    rows, columns = np.nonzero(body)
    top, bottom = rows.min(), rows.max()
    middle = (columns.min() + columns.max()) / 2
    for least, gap in product(_BONE, (2.0, 5.0)):
        bone = np.asarray((smooth > least) & body)
        filled = np.asarray(ndimage.binary_fill_holes(closed(bone, gap, pitch)))
        labels, _ = ndimage.label(opened(filled, 11.0, pitch))
        pieces = [
            region
            for region in regions_of(labels)
            if region.area * pitch**2 > 800
            and region.centroid[0] > top + 0.4 * (bottom - top)
            and abs(region.centroid[1] - middle) * pitch < 45
            and _is_bone(smooth, region, least, pitch)
        ]
        if pieces:
            return _spine(filled, max(pieces, key=lambda region: float(region.area)), pitch)
    return None


def _is_bone(smooth: Image, region: Any, least: float, pitch: float) -> bool:
    """Whether what `least` HU leave out of the front of `region` is spongy bone or little, and not the canal."""
    front = region.coords[region.coords[:, 0] < region.bbox[0] + 30 / pitch]
    values = smooth[tuple(front.T)]
    inside = values[values < least]
    return len(inside) < 0.2 * len(values) or float(np.median(inside)) > _CANAL


def _spine(bone: Mask, piece: Any, pitch: float) -> Spine:
    """The bone that hangs together with the vertebral body `piece`, not in front of it, and the canal."""
    top, first, end, beyond = piece.bbox
    bottom = min(end - 1, top + _BODY_DEPTH / pitch)
    rows, columns = np.indices(bone.shape)
    aside = np.abs(columns - (first + beyond - 1) / 2) * pitch
    labels, _ = ndimage.label(bone & (rows > top - 2 / pitch) & (aside < 75))
    row, column = piece.coords[len(piece.coords) // 2]
    mask = np.asarray(labels == labels[row, column])
    canal = closed(mask, 9.0, pitch) & (aside < 15) & (rows > (top + bottom) / 2)
    whole = np.asarray(ndimage.binary_fill_holes(mask | canal))
    return Spine(whole, (float(top), float(bottom), float(first), float(beyond - 1)))


def find_compartment(smooth: Image, body: Mask, pitch: float) -> Mask:
    """Everything inside the wall's outer boundary: what is denser than fat below the skin, closed by 10 mm, filled.

    An opening by 4 mm takes away subcutaneous vessels.
    """
    inside = erode(body, _SKIN, pitch)
    lean = opened(np.asarray((smooth > -45) & inside), 1.2, pitch)
    filled = np.asarray(ndimage.binary_fill_holes(closed(largest(closed(lean, 3.0, pitch)), 10.0, pitch)))
    return largest(opened(filled & inside, 4.0, pitch))


@dataclass(frozen=True)
class Wall:
    """The wall unrolled around `centre` (row, column).

    `outer`, `inner` (ANGLES,): radii in mm of its boundaries. `visible` (ANGLES,) bool: where the image shows the
    inner one; elsewhere it is bridged between its neighbours. `solid` (ANGLES,): share of muscle or bone in the
    outermost 8 mm. `cover` (ANGLES,): mm from the outer boundary to the skin.
    """

    centre: tuple[float, float]
    outer: npt.NDArray[np.float64]
    inner: npt.NDArray[np.float64]
    visible: Mask
    solid: npt.NDArray[np.float64]
    cover: npt.NDArray[np.float64]


def find_wall(smooth: Image, body: Mask, compartment: Mask, spine: Spine, pitch: float) -> Wall:
    """The inner boundary as the cheapest closed path (dynamic programming) in the unrolled wall.

    A step outwards from fat or gas to muscle makes the path cheap, the more fat lies in the 6 mm on its inner side;
    a change of depth between neighbouring directions costs.
    """
    front = int(np.nonzero(compartment[:, round(spine.middle)])[0].min())
    centre = spine.body[0] + 0.3 * (front - spine.body[0]), spine.middle
    angles = 2 * np.pi * np.arange(ANGLES) / ANGLES
    down, across = -np.cos(angles), np.sin(angles)
    far = float(np.hypot(*compartment.shape)) * pitch
    radii = np.arange(0, far, DEPTH_STEP)
    at = _along(centre, down, across, radii[None, :], pitch)
    skin, outer = (_last(mask, at, radii) for mask in (body, compartment))
    depths = np.arange(0, _THICKEST, DEPTH_STEP)
    lean = np.where(smooth > 170, 0.5, np.clip((smooth + 90) / 110, 0, 1))
    lean = np.where(spine.mask, 1, lean)
    distance = outer[:, None] - depths[None, :]
    wall = ndimage.map_coordinates(lean, _along(centre, down, across, distance, pitch), order=1, mode="nearest")
    bony = ndimage.map_coordinates(
        spine.mask.astype(np.float32), _along(centre, down, across, radii[None, :], pitch), order=1
    )
    crossed = bony.max(axis=1) > 0.5
    before = np.where(crossed, radii[np.argmax(bony > 0.5, axis=1)], 5.0)
    back = ((spine.body[1] - centre[0]) * pitch + _ARCH) / np.maximum(down, 1e-3)
    behind = np.where(crossed, np.maximum(before + 3, np.where(down > 0, back, 0)), np.inf)
    above, below, deep = _mean(wall, -1.5, 0), _mean(wall, 0, 1.5), _mean(wall, 1, 7)
    evidence = (above - below).clip(0) * (0.25 + 0.75 * (1 - deep)) * (above > 0.5)
    fat = np.cumsum(1 - wall, axis=1) * DEPTH_STEP
    cost = (
        1
        - evidence / 0.8
        + _FAT_COST * np.maximum(fat - 3, 0)
        + _DEPTH_COST * np.clip(0.3 - down, 0, 1)[:, None] * depths
    )
    cost[(depths[None, :] < _THINNEST) | (distance < before[:, None]) | (distance > behind[:, None])] = 4
    path = cheapest_ring(cost, slope=2, penalty=0.12)
    chosen = np.take_along_axis(evidence, path[:, None], 1)[:, 0]
    inner = ndimage.gaussian_filter1d(outer - depths[path], 1.0, mode="wrap")
    return Wall(
        centre,
        outer,
        np.minimum(inner, outer),
        np.asarray((chosen > 0.2) | crossed),
        _mean(wall, 1, 8)[:, 0],
        skin - outer,
    )


def _last(mask: Mask, at: Image, radii: Image) -> npt.NDArray[np.float64]:
    """The largest of `radii` at which each ray `at` is in `mask`."""
    inside = ndimage.map_coordinates(mask.astype(np.float32), at, order=1) > 0.5
    return np.asarray(radii[inside.shape[1] - 1 - np.argmax(inside[:, ::-1], axis=1)])


def _along(centre: tuple[float, float], down: Image, across: Image, radii: Image, pitch: float) -> Image:
    return np.stack([centre[0] + down[:, None] * radii / pitch, centre[1] + across[:, None] * radii / pitch])


def _mean(wall: Image, first: float, last: float) -> Image:
    """Mean of the depths from `first` to `last` mm below each one."""
    count = wall.shape[1]
    sums = np.pad(np.cumsum(wall, axis=1), ((0, 0), (1, 0)))
    start = np.clip(np.arange(count) + round(first / DEPTH_STEP), 0, count - 1)
    end = np.clip(np.arange(count) + round(last / DEPTH_STEP), start + 1, count)
    return np.asarray((sums[:, end] - sums[:, start]) / (end - start))


def cheapest_ring(cost: Image, slope: int, penalty: float) -> npt.NDArray[np.int64]:
    """Index of column for every row of `cost` (steps, choices), cheapest in sum, the last row followed by the first.

    Neighbours differ by at most `slope`, and each unit of difference costs `penalty`. The path runs round twice and its
    second half-turns are kept, which closes it.
    """
    count = len(cost)
    twice = np.concatenate([cost, cost])
    total = twice[0].copy()
    moves = np.zeros(twice.shape, np.int8)
    offsets = np.arange(-slope, slope + 1)
    for row in range(1, len(twice)):
        padded = np.pad(total, slope, constant_values=np.inf)
        options = np.stack([padded[slope + o : slope + o + len(total)] + penalty * abs(o) for o in offsets])
        best = options.argmin(axis=0)
        moves[row] = offsets[best]
        total = twice[row] + np.take_along_axis(options, best[None], 0)[0]
    path = np.empty(len(twice), np.int64)
    path[-1] = int(total.argmin())
    for row in range(len(twice) - 1, 0, -1):
        path[row - 1] = path[row] + moves[row, path[row]]
    half = count // 2
    return np.concatenate([path[count : count + half], path[half:count]])


def fill(wall: Wall, radii: npt.NDArray[np.float64], shape: tuple[int, int], pitch: float) -> Mask:
    """The pixels nearer to the wall's centre than `radii` (ANGLES,) in mm."""
    rows, columns = np.indices(shape)
    down, across = (rows - wall.centre[0]) * pitch, (columns - wall.centre[1]) * pitch
    turn = np.arctan2(across, -down) / (2 * np.pi) % 1 * ANGLES
    limit = np.interp(turn.ravel(), np.arange(ANGLES + 1), np.append(radii, radii[0])).reshape(shape)
    return np.asarray(np.hypot(down, across) <= limit)


def find_psoas(lean: Mask, spine: Spine, pitch: float) -> tuple[Mask, Mask]:
    """Right and left psoas: the lean parts beside the vertebral body, cut from what touches them by a watershed.

    `lean`: pixels of muscle's attenuation inside the wall's inner boundary, without the spine.
    """
    top, bottom, first, last = spine.body
    middle = (top + bottom) / 2
    solid = opened(lean, 2.0, pitch)
    room = np.asarray(ndimage.distance_transform_edt(solid)) * pitch
    room = ndimage.gaussian_filter(room, 1.5 / pitch)
    lowered = morphology.reconstruction(room - _PROMINENCE, room)  # type: ignore[no-untyped-call]
    peaks = room - lowered > 0.99 * _PROMINENCE
    seeds, _ = ndimage.label(peaks & solid, np.ones((3, 3)))
    labels = segmentation.watershed(-room, seeds, mask=solid)  # type: ignore[no-untyped-call]
    nearest: dict[int, list[tuple[float, int]]] = {0: [], 1: []}
    for region in regions_of(labels):
        row, column = region.centroid
        side = int(column > spine.middle)
        beside = (column - last if side else first - column) * pitch
        back = (row - middle) * pitch
        if 2 < beside < 40 and -16 < back < 22 and 100 < region.area * pitch**2 < 3000:
            away = float(np.hypot(beside - 17, back + 4)) - float(region.equivalent_diameter_area) * pitch / 2
            nearest[side].append((away, int(region.label)))
    right, left = (_with_neighbours(labels, sorted(found), pitch) for found in (nearest[0], nearest[1]))
    return right, left


def _with_neighbours(labels: Image, found: list[tuple[float, int]], pitch: float) -> Mask:
    """The first of the labels `found` and the others of them that touch it along 4 mm or more."""
    if not found:
        return np.zeros(labels.shape, bool)
    main = np.asarray(labels == found[0][1])
    rim = np.asarray(ndimage.binary_dilation(main))
    touching = [label for _, label in found[1:] if float((rim & (labels == label)).sum()) * pitch > 4]
    return np.asarray(main | np.isin(labels, touching)) if touching else main
