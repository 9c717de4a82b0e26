"""Areas and mean attenuation of body, adipose tissue and skeletal muscle on an axial slice at L3."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from hounsfield.body.regions import (
    Image,
    Mask,
    Spine,
    Wall,
    dilate,
    erode,
    fill,
    find_body,
    find_compartment,
    find_psoas,
    find_spine,
    find_wall,
    opened,
    regions_of,
)
from hounsfield.errors import InputError

ADIPOSE_HU = (-190, -30)
MUSCLE_HU = (-29, 150)
"""Both ends belong to the tissue."""
TISSUES = ("body", "adipose", "subcutaneous", "visceral", "muscle")
_COARSEST = 1.7
_BRIDGED = 0.35
_SOLIDITY = 0.93
LEAST_HEIGHT, GREATEST_HEIGHT = 0.5, 2.5
"""Heights of a patient in m that can be."""


@dataclass(frozen=True)
class Measure:
    """`area` in cm2 and `mean` in HU of one tissue; `mean` is None when it has no pixel."""

    area: float
    mean: float | None


@dataclass(frozen=True)
class Composition:
    """What one slice shows.

    Attributes:
        measures: by name in `TISSUES`; None where a doubt forbids a figure. Adipose tissue is subcutaneous, visceral
            and the little between the boundaries of the wall, which has no figure of its own.
        masks: uint8 0/1 (rows, columns) of the tissues and of intermuscular fat, also where the figure
            is withheld, to check by eye.
        doubts: sentences that say why a figure is withheld; empty when all are given.
        skeletal_muscle_index: muscle area by height squared in cm2/m2; None without muscle area or height.
        notes: sentences about what is missing without making a figure doubtful.
    """

    measures: dict[str, Measure | None]
    masks: dict[str, npt.NDArray[np.uint8]]
    doubts: list[str] = field(default_factory=list)
    skeletal_muscle_index: float | None = None
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: areas in cm2, attenuation in HU, SMI in cm2/m2, doubts and notes."""
        return {
            "areas_cm2": {name: m and round(m.area, 2) for name, m in self.measures.items()},
            "mean_hu": {
                name: None if m is None or m.mean is None else round(m.mean, 1) for name, m in self.measures.items()
            },
            "skeletal_muscle_index_cm2_m2": self.skeletal_muscle_index and round(self.skeletal_muscle_index, 2),
            "doubts": self.doubts,
            "notes": self.notes,
            "use": "research use only",
        }


@dataclass(frozen=True)
class _Found:
    masks: dict[str, Mask]
    doubts: dict[str, list[str]]


def composition(
    hu: npt.NDArray[np.integer[Any]], spacing: tuple[float, float], height: float | None = None
) -> Composition:
    """Areas and mean attenuation on one axial slice through the third lumbar vertebra.

    Adipose tissue is -190 to -30 HU and muscle -29 to 150 HU (Mitsiopoulos et al., J Appl Physiol 85, 1998; Mourtzakis
    et al., Appl Physiol Nutr Metab 33, 2008), both ends included. Where the pixels of a tissue may lie is found as
    `hounsfield.body.regions` and docs/body-composition.md say.

    Args:
        hu: (rows, columns) integer Hounsfield units, rows from front to back, columns from the patient's right to left.
        spacing: distance of the rows and of the columns in mm.
        height: the patient's height in m, for the skeletal muscle index.

    Raises:
        InputError: not a slice in HU, or a spacing or height that cannot be.
    """
    _check(hu, spacing, height)
    pitch = float(np.clip(min(spacing), 0.6, 1.0))
    even = ndimage.zoom(hu.astype(np.float32), np.divide(spacing, pitch), order=1, grid_mode=True, mode="nearest")
    found = _find(even, pitch)
    masks = {name: _resampled(mask, hu.shape) for name, mask in found.masks.items()}
    fat = (hu >= ADIPOSE_HU[0]) & (hu <= ADIPOSE_HU[1])
    lean = (hu >= MUSCLE_HU[0]) & (hu <= MUSCLE_HU[1])
    tissue = {
        "body": masks["body"],
        "subcutaneous": masks["subcutaneous"] & fat,
        "visceral": _coherent(masks["visceral"] & fat, hu, spacing),
        "intermuscular": masks["muscle"] & fat,
        "muscle": masks["muscle"] & lean,
    }
    tissue["adipose"] = tissue["subcutaneous"] | tissue["visceral"] | tissue["intermuscular"]
    doubts = {name: list(sentences) for name, sentences in found.doubts.items()}
    if max(spacing) > _COARSEST:
        sentence = f"Pixels of {max(spacing):.2f} mm are too coarse: expected {_COARSEST} mm or less."
        for name in TISSUES[1:]:
            doubts.setdefault(name, []).append(sentence)
    pixel = spacing[0] * spacing[1] / 100
    measures: dict[str, Measure | None] = {}
    for name in TISSUES:
        count = int(tissue[name].sum())
        mean = float(hu[tissue[name]].mean()) if count else None
        measures[name] = None if doubts.get(name) else Measure(count * pixel, mean)
    notes = [] if height else ["The patient's height is missing: no skeletal muscle index."]
    muscle = measures["muscle"]
    return Composition(
        measures,
        {name: tissue[name].astype(np.uint8) for name in (*TISSUES, "intermuscular")},
        list(dict.fromkeys(sentence for name in TISSUES for sentence in doubts.get(name, []))),
        muscle.area / height**2 if muscle and height else None,
        notes,
    )


def _coherent(fat: Mask, hu: npt.NDArray[Any], spacing: tuple[float, float]) -> Mask:
    """Without parts below 40 mm2 or above -55 HU in the mean: bowel content that is only partly like fat."""
    labels, _ = ndimage.label(fat)
    counts = np.maximum(np.bincount(labels.ravel()), 1)
    means = np.bincount(labels.ravel(), weights=hu.ravel()) / counts
    kept = (counts * spacing[0] * spacing[1] >= 40) & (means < -55)
    kept[0] = False
    return np.asarray(kept[labels])


def _check(hu: npt.NDArray[Any], spacing: tuple[float, float], height: float | None) -> None:
    if hu.ndim != 2 or min(hu.shape) < 64 or not np.issubdtype(hu.dtype, np.integer):
        raise InputError(
            f"slice of shape {hu.shape} and type {hu.dtype}: expected integer HU (rows, columns), at least 64 x 64"
        )
    if len(spacing) != 2 or not all(0.2 <= value <= 5 for value in spacing):
        raise InputError(f"spacing {spacing}: expected the distance of rows and of columns, each 0.2 to 5 mm")
    if height is not None and not LEAST_HEIGHT <= height <= GREATEST_HEIGHT:
        raise InputError(f"height {height}: expected {LEAST_HEIGHT} to {GREATEST_HEIGHT} m")
    air, soft = float((hu < -800).mean()), float(((hu > -200) & (hu < 200)).mean())
    if air < 0.02 or soft < 0.05:
        raise InputError(
            f"values from {hu.min()} to {hu.max()} with {air:.0%} air (below -800) and {soft:.0%} soft tissue (-200 to "
            "200) are no CT slice of a whole body in HU: apply RescaleSlope and RescaleIntercept, and give CT only"
        )


def _cut(hu: Image, body: Mask, pitch: float) -> bool:
    """Whether the body touches the edge of the image or of the round field of view, where the corners are padded."""
    rows, columns = np.indices(hu.shape)
    middle = (np.array(hu.shape) - 1) / 2
    beyond = np.minimum.reduce([rows, columns, hu.shape[0] - 1 - rows, hu.shape[1] - 1 - columns]) < 2
    corners = hu[[0, 0, -1, -1], [0, -1, 0, -1]]
    if np.ptp(corners) == 0 and hu.shape[0] == hu.shape[1]:
        beyond |= np.hypot(rows - middle[0], columns - middle[1]) > hu.shape[0] / 2 - 2
    return float((body & beyond).sum()) * pitch > 6


def _resampled(mask: Mask, shape: tuple[int, ...]) -> Mask:
    if mask.shape == shape:
        return mask
    factors = np.divide(shape, mask.shape)
    share = ndimage.zoom(mask.astype(np.float32), factors, order=1, grid_mode=True, mode="nearest")
    return np.asarray(share > 0.5)


def _find(hu: Image, pitch: float) -> _Found:
    """Masks of body, subcutaneous and visceral space and of muscle, with the doubts about each tissue."""
    nothing = np.zeros(hu.shape, bool)
    masks = {"body": find_body(hu, pitch), "subcutaneous": nothing, "visceral": nothing, "muscle": nothing}
    doubts: dict[str, list[str]] = {}

    def doubt(sentence: str, *tissues: str) -> None:
        for name in {*tissues, "adipose"} if set(tissues) & {"subcutaneous", "visceral"} else tissues:
            doubts.setdefault(name, []).append(sentence)

    body = masks["body"]
    area = float(body.sum()) * pitch**2 / 100
    if area < 150:
        doubt(f"The largest part of the slice that is not air has {area:.0f} cm2, too small for an abdomen.", *TISSUES)
        return _Found(masks, doubts)
    edge = "The body reaches the edge of the field of view: a part of it is missing."
    if _cut(hu, body, pitch):
        doubt(edge, "body", "subcutaneous")
    smooth = ndimage.gaussian_filter(np.clip(hu, -300, 600), 1.0 / pitch)
    spine = find_spine(smooth, body, pitch)
    if spine is None:
        doubt("No vertebra was found.", *TISSUES[1:])
        return _Found(masks, doubts)
    compartment = find_compartment(smooth, body, pitch)
    if _cut(hu, compartment, pitch) or not compartment[round(spine.body[0]), round(spine.middle)]:
        doubt(edge, *TISSUES[1:])
        return _Found(masks, doubts)
    wall = find_wall(smooth, body, compartment, spine, pitch)
    _fill_masks(masks, smooth, compartment, wall, spine, pitch, doubt)
    return _Found(masks, doubts)


def _fill_masks(
    masks: dict[str, Mask], smooth: Image, compartment: Mask, wall: Wall, spine: Spine, pitch: float, doubt: Any
) -> None:
    cavity = fill(wall, wall.inner, smooth.shape, pitch) & compartment & ~spine.mask
    ring = compartment & ~cavity & ~spine.mask
    lean = (smooth > MUSCLE_HU[0]) & (smooth < MUSCLE_HU[1])
    psoas = find_psoas(lean & cavity, spine, pitch)
    gas = dilate((smooth < -200) & compartment, 2.0, pitch)
    masks["muscle"] = ring | psoas[0] | psoas[1]
    masks["visceral"] = cavity & ~masks["muscle"] & ~gas
    masks["subcutaneous"] = erode(masks["body"], 1.0, pitch) & ~compartment
    _judge(masks, smooth, compartment, wall, spine, pitch, doubt)


def _judge(
    masks: dict[str, Mask], smooth: Image, compartment: Mask, wall: Wall, spine: Spine, pitch: float, doubt: Any
) -> None:
    """Reasons to withhold figures that only the finished masks show."""
    rows, columns = np.indices(smooth.shape)
    top, bottom, first, last = spine.body
    near = (columns > first - 60 / pitch) & (columns < last + 60 / pitch) & (rows > top)
    square = pitch**2 / 100
    gas = float(((smooth < -250) & near & compartment).sum()) * square
    if gas > 8:
        doubt(f"{gas:.0f} cm2 of gas lie beside the vertebra: lung, so the slice is not at L3.", *TISSUES[1:])
    aside = (smooth > 200) & masks["muscle"] & ~dilate(spine.mask, 8.0, pitch)
    sizes = np.bincount(ndimage.label(opened(aside, 1.0, pitch))[0].ravel())[1:] * square
    if (sizes > 0.1).sum() > 5 or sizes.sum() > 8:
        found = f"{len(sizes)} pieces of bone with {sizes.sum():.1f} cm2"
        doubt(f"{found} lie in the wall: ribs or pelvis, so the slice is not at L3.", *TISSUES[1:])
    band = (rows > top - 8 / pitch) & (rows < top + 0.85 * (bottom - top)) & masks["muscle"] & (smooth > MUSCLE_HU[0])
    beside = {
        "right": band & (columns < first) & (columns > first - 40 / pitch),
        "left": band & (columns > last) & (columns < last + 40 / pitch),
    }
    for side, muscle in beside.items():
        size = float(muscle.sum()) * square
        if size < 3:
            doubt(
                f"Only {size:.1f} cm2 of muscle lie beside the vertebra on the {side}: no psoas as at L3.",
                "visceral",
                "muscle",
            )
    bridged = 1 - float(wall.visible.mean())
    if bridged > _BRIDGED:
        doubt(
            f"The inner boundary of the abdominal wall is hidden over {bridged:.0%} of its length.",
            "visceral",
            "muscle",
        )
    shape = regions_of(compartment.astype(np.uint8))[0].solidity
    if shape < _SOLIDITY:
        doubt(f"The outline of the muscles is dented (solidity {shape:.2f}): the ring is not closed.", *TISSUES[1:])
    thin = wall.cover < 6
    thick = ndimage.maximum_filter1d(wall.cover, len(thin) // 9, mode="wrap") > 15
    if _longest(thin & thick) * 360 / len(thin) > 6:
        doubt("The muscles' outline jumps to the skin: a scar, stoma or hernia.", *TISSUES[1:])
    gap = _longest(wall.solid < 0.4) * 360 / len(wall.solid)
    if gap > 16:
        doubt(f"The ring of muscle is open over {gap:.0f} degrees.", *TISSUES[1:])


def _longest(row: Mask) -> int:
    """Length of the longest run of True in the ring `row`."""
    labels, count = ndimage.label(np.concatenate([row, row]))
    return min(int(np.bincount(labels)[1:].max()), len(row)) if count else 0
