"""Whether a CT series shows what its task needs, by its content: headers are not reliable about the body region.

Planes about 5 mm apart are averaged to pixels of about 3 mm, which takes most of the noise of a low dose away, and
looked at one by one. A series is refused only where its content is clear: a false refusal costs a result, a false
acceptance a look.

`lung-tumour` needs aerated lung. The finder of `tumour_site` also takes bowel for lung where gas and its blurred rim
make up a region together, so lung is counted away from the rims of its regions, and only where it holds more than gas:
on real CT bowel has at most 4 cm2 of that in a plane, a head with sinuses and mastoids 1, a chest mostly 20 to 200.
Lung bases at the top of an abdomen can hold a tumour and are accepted.

`l3-slice` needs a trunk with a spine, below the lungs. Heads are known by a closed ring of bone, legs by two bodies or
by no bone in the middle of the body, and a series that ends at or right below the lungs cannot have reached L3: with L1
and L2, 50 mm or more lie between. Where the body goes beyond the image on much of its border nothing is refused.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from hounsfield.data.tumour_site import AERATED_HU, find_lungs

WRONG_REGION = "wrong-region"
CHECKED, NOT_CHECKED = "checked", "not checked"
OVERRIDE = "--any-region predicts it all the same"

PITCH_MM = 5.0
PIXEL_MM = 3.0
MOST_PLANES = 128
PADDING_HU = -1200
"""Padding counts as this. Nearer to air, noise would be cut on one side alone and lift the mean of gas."""

GAS_HU = -940
"""Half way between gas (-1000) and the mean of a lung (-880 even in severe emphysema)."""
LUNG_CM2, LUNG_MM = 10.0, 10.0
"""Least lung in a plane, and length along the patient over which it is seen."""
LUNG_SHARE = 0.05
"""Share of a small image that is enough lung as well."""
CHEST_CM2 = 40.0
"""Lung in a plane from which it is lung for sure, not stool."""
BELOW_LUNGS_MM = 30.0
"""L3 begins further below the lungs than this, in children too."""

BONE_HU = 150
SKULL_CM2 = (60.0, 300.0)
"""Area inside a ring of bone. In real trunks at most 29 (pelvis), in heads about 120."""
LIMB_SHARE = 0.5
"""A second body from this share of the larger one: two legs. An arm has up to 0.25 beside a trunk, 0.4 at a neck."""
SPINE_CM2 = 3.0
"""Least bone in the middle third of the body's width."""
TRUNK_MM = 20.0
CROPPED_SHARE = 0.5
"""Share of the image's border that is denser than gas from which the body is taken to go on beyond the image."""
FRAME_MM = 15.0

Plane = npt.NDArray[np.float32]
Spacing = tuple[float, float]


class WrongRegionError(Exception):
    """The series does not show what the task needs; the message says what was looked for and what was seen."""


def check_region(task: str, hu: npt.NDArray[np.int16], spacing: tuple[float, float, float]) -> None:
    """Check that a volume can be what `task` needs.

    Args:
        hu: (slice, row, column) int16: inferior to superior, anterior to posterior, right to left.
        spacing: mm between slices, rows and columns.

    Raises:
        WrongRegionError: it certainly is not.
    """
    step = max(1, round(PITCH_MM / spacing[0]), math.ceil(len(hu) / MOST_PLANES))
    pitch = step * spacing[0]
    down, across = _step(hu.shape[1], spacing[1]), _step(hu.shape[2], spacing[2])
    pixel = down * spacing[1], across * spacing[2]
    planes = [_averaged(plane, down, across) for plane in hu[::step]]
    lung = np.array([lung_area(plane, pixel) for plane in planes])
    least = min(LUNG_CM2, LUNG_SHARE * _cm2(planes[0].size, pixel))
    if task == "lung-tumour":
        _require_lung(lung, least, pitch)
    else:
        _require_trunk(planes, pixel, lung, pitch)


def _require_lung(lung: npt.NDArray[np.float64], least: float, pitch: float) -> None:
    seen = pitch * np.count_nonzero(lung >= least)
    if seen < min(LUNG_MM, pitch * len(lung)):
        raise WrongRegionError(
            f"no aerated lung of at least {least:.3g} cm2 over {LUNG_MM:.0f} mm (largest {lung.max():.0f} cm2, "
            f"{seen:.0f} mm reach {least:.3g} cm2): expected CT of the chest ({OVERRIDE})"
        )


def _require_trunk(planes: list[Plane], pixel: Spacing, lung: npt.NDArray[np.float64], pitch: float) -> None:
    enough = min(TRUNK_MM, pitch * len(planes) / 2)
    skulls = [k for k, plane in enumerate(planes) if has_skull(plane, pixel)]
    if skulls and pitch * len(skulls) >= enough and not (lung[: skulls[0]] >= LUNG_CM2).any():
        raise WrongRegionError(_not_l3(f"a skull over {pitch * len(skulls):.0f} mm and no lungs below it"))
    base = pitch * _lung_base(lung)
    if lung.max() >= CHEST_CM2 and base < BELOW_LUNGS_MM:
        raise WrongRegionError(_not_l3(f"lungs down to {base:.0f} mm above the lowest slice, and L3 lies further down"))
    trunk = pitch * sum(is_trunk(plane, pixel) for plane in planes)
    if trunk < enough:
        raise WrongRegionError(
            _not_l3(
                f"two limbs, or no body with bone in its middle, in all but {trunk:.0f} of {pitch * len(planes):.0f} mm"
            )
        )


def _not_l3(seen: str) -> str:
    return f"{seen}: expected CT of the abdomen ({OVERRIDE})"


def _lung_base(lung: npt.NDArray[np.float64]) -> int:
    """Lowest plane of the unbroken run of planes with lung that holds the plane with most of it."""
    base = int(lung.argmax())
    while base > 0 and lung[base - 1] >= LUNG_CM2:
        base -= 1
    return base


def lung_area(plane: Plane, pixel: Spacing) -> float:
    """Aerated lung in cm2, without the rims of its regions; gas does not count.

    An image that the body goes beyond gets a frame of tissue, so that a lung cut by its border lies inside the body.
    """
    if _is_cropped(plane):
        plane = np.pad(plane, round(FRAME_MM / PIXEL_MM))
    found = find_lungs(plane, pixel)
    if found is None:
        return 0.0
    inner = ndimage.binary_erosion(found[0], np.ones((3, 3)), border_value=1)
    return _cm2(np.count_nonzero(inner & (ndimage.median_filter(plane, 3) > GAS_HU)), pixel)


def has_skull(plane: Plane, pixel: Spacing) -> bool:
    """Whether a closed ring of bone has more inside than in itself, of the size of a head."""
    bone = plane > BONE_HU
    inside = ndimage.binary_fill_holes(bone) & ~bone
    rings, count = ndimage.label(inside | bone)
    contents = np.bincount(rings[inside], minlength=count + 1)
    largest = int(contents.argmax())
    area = _cm2(contents[largest], pixel)
    return SKULL_CM2[0] <= area <= SKULL_CM2[1] and 2 * contents[largest] > np.count_nonzero(rings == largest)


def is_trunk(plane: Plane, pixel: Spacing) -> bool:
    """Whether this may be a section of a trunk: one body with bone in its middle third, or one cut by the image."""
    if _is_cropped(plane):
        return True
    solid = ndimage.binary_opening(np.pad(plane > AERATED_HU, 3, mode="edge"), iterations=2)[3:-3, 3:-3]
    pieces, count = ndimage.label(solid)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    if count == 0 or np.sort(sizes)[:-1].max(initial=0) > LIMB_SHARE * sizes.max():
        return False
    body = pieces == 1 + int(sizes.argmax())
    columns = np.flatnonzero(body.any(axis=0))
    third = len(columns) // 3
    middle = slice(columns[0] + third, columns[-1] + 1 - third)
    return _cm2(np.count_nonzero(body[:, middle] & (plane[:, middle] > BONE_HU)), pixel) >= SPINE_CM2


def _is_cropped(plane: Plane) -> bool:
    border = np.concatenate([plane[0], plane[-1], plane[:, 0], plane[:, -1]])
    return bool(np.mean(border > GAS_HU) > CROPPED_SHARE)


def _step(size: int, spacing: float) -> int:
    return min(size, max(1, round(PIXEL_MM / spacing)))


def _averaged(plane: npt.NDArray[np.int16], down: int, across: int) -> Plane:
    """Means of blocks of `down` rows and `across` columns, padding raised to `PADDING_HU`."""
    rows, columns = plane.shape[0] // down, plane.shape[1] // across
    blocks = np.maximum(plane[: rows * down, : columns * across], PADDING_HU).reshape(rows, down, columns, across)
    return np.asarray(blocks.mean(axis=(1, 3), dtype=np.float32))


def _cm2(pixels: Any, pixel: Spacing) -> float:
    return float(pixels) * pixel[0] * pixel[1] / 100
