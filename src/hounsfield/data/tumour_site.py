"""Where a lung tumour lies: attached to the chest wall, or intrapulmonary; from a CT volume and the tumour's mask.

In every axial slice with tumour the lungs are the aerated regions inside the body. The convex hull of both lungs is
taken for the inside of the thoracic cage: ribs and intercostal muscles lie outside it, mediastinum, heart and domes of
the diaphragm within, and a tumour on the wall, which is missing from the aerated lung, is at most cut by a chord. A
tumour touches the chest wall where its outline borders on tissue, not on aerated lung, at the hull or beyond. It is
attached when that is a substantial part of its surface: vessels that enter it, mediastinum and diaphragm do not count,
nor does a contact of a few voxels. The hull is that of both lungs, because each lung's own would take the mediastinum
for wall.

What this cannot see: lung without air (atelectasis, consolidation) and effusion between tumour and wall look like wall,
and whether an attached tumour invades the wall or merely abuts on the pleura is not asked.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

SITES = ("chest-wall", "intrapulmonary")

AERATED_HU = -400
"""Below: lung or air, above: tissue. Half way between lung (-850) and muscle (50)."""
AIR_HU = -970
"""A region with a median below is air alone (trachea, stomach, bowel, surroundings); a lung holds blood as well."""
SMALLEST_LUNG_MM2 = 100.0
THINNEST_LUNG_MM = 6.0
"""Thinner regions are air between body and table or clothes."""
SMALLEST_TISSUE_MM = 10.0
"""Sheets and bridges thinner than this (table, clothes) are cut off the body."""
REACH_MM = 4.0
"""Tissue at most so deep inside the hull belongs to the wall: ribs bulge inwards, and outlines are drawn by hand."""
ATTACHED_SHARE = 0.06
"""Share of its surface on the wall from which a tumour is attached; a sphere's contact is then half its own width."""
SMALLEST_TUMOUR_SHARE = 0.02
"""Components of the mask below this share of it are specks of a drawn or resized outline and decide nothing."""
COARSE_MM = 3.0

Bool = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def tumour_site(hu: npt.NDArray[np.int16], mask: npt.NDArray[Any], spacing: tuple[float, float, float]) -> str:
    """Site of the tumour, one of `SITES`: on the chest wall when any of several is.

    Args:
        hu: int16 (slice, row, column), HU before any windowing.
        mask: same shape, not 0 in the tumour.
        spacing: mm between slices, rows and columns.

    Returns:
        An empty string without a tumour, or without a lung in any slice with tumour.
    """
    contacts = wall_contact(hu, mask, spacing)
    if contacts is None:
        return ""
    chest_wall, intrapulmonary = SITES
    return chest_wall if any(share >= ATTACHED_SHARE for share in contacts) else intrapulmonary


def wall_contact(
    hu: npt.NDArray[np.int16], mask: npt.NDArray[Any], spacing: tuple[float, float, float]
) -> list[float] | None:
    """Share of each tumour's surface that touches the chest wall, by connected component of the mask.

    The surface is that of the outlines in the axial slices in which a lung is found; None when there is none.
    """
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    if slices.size == 0:
        return None
    tumour = mask[slices[0] : slices[-1] + 1] != 0
    components, count = ndimage.label(tumour)
    surface, wall = np.zeros(count + 1), np.zeros(count + 1)
    for place in slices - slices[0]:
        outline = tumour[place] & ~ndimage.binary_erosion(tumour[place])
        touching = wall_pixels(hu[slices[0] + place], tumour[place], outline, spacing[1:])
        if touching is not None:
            surface += np.bincount(components[place][outline], minlength=count + 1)
            wall += np.bincount(components[place][touching], minlength=count + 1)
    sizes = np.bincount(components[tumour], minlength=count + 1)
    counted = (surface > 0) & (sizes >= SMALLEST_TUMOUR_SHARE * sizes.sum())
    return list(wall[counted] / surface[counted]) or None


def wall_pixels(plane: npt.NDArray[np.int16], tumour: Bool, outline: Bool, spacing: tuple[float, float]) -> Bool | None:
    """Pixels of the tumour's `outline` in an axial slice that touch the chest wall; None without a lung."""
    cage = cage_hull(plane, spacing)
    if cage is None:
        return None
    beside_lung = ndimage.binary_dilation((plane < AERATED_HU) & ~tumour)
    wall: Bool = outline & ~beside_lung
    wall[wall] = _depth(np.argwhere(wall) * np.asarray(spacing), cage) <= REACH_MM
    return wall


def cage_hull(plane: npt.NDArray[np.int16], spacing: tuple[float, float]) -> Floats | None:
    """Hull of the lungs in an axial slice and of the middle of the body, which bounds a lone lung medially.

    Returns:
        Lines (N, 3): a point (row, column) in mm with n . point + b <= 0 for all (n, b) is inside. None without a lung.
    """
    found = find_lungs(plane, spacing)
    if found is None:
        return None
    lungs, middle = found
    edge = np.argwhere(lungs & ~ndimage.binary_erosion(lungs)) * spacing
    return _hull(np.vstack([edge, middle]))


def find_lungs(plane: npt.NDArray[Any], spacing: tuple[float, float]) -> tuple[Bool, Floats] | None:
    """Aerated regions inside the body in an axial slice, and the middle of the body; None without one.

    Args:
        plane: HU (row, column).
        spacing: mm between rows and columns.

    Returns:
        bool (row, column), and row and column in mm.
    """
    body = _body(plane, spacing)
    outside = None if body is None else _hull(body)
    if body is None or outside is None:
        return None
    lungs = _lungs(plane, spacing, outside)
    return (lungs, body.mean(axis=0)) if lungs.any() else None


def _body(plane: npt.NDArray[Any], spacing: tuple[float, float]) -> Floats | None:
    """Points in mm, on a coarse grid, of the largest piece of tissue."""
    step = _coarse(spacing)
    tissue = plane[::step, ::step] > AERATED_HU
    pixels = max(1, round(SMALLEST_TISSUE_MM / (2 * step * spacing[0])))
    pieces, count = ndimage.label(ndimage.binary_opening(tissue, iterations=pixels))
    if count == 0:
        return None
    largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    points: Floats = np.argwhere(pieces == largest) * step * np.asarray(spacing)
    return points


def _lungs(plane: npt.NDArray[Any], spacing: tuple[float, float], body: Floats) -> Bool:
    """Regions of low density, inside the body's hull for the most part, that hold more than air.

    They may be cut by the border of the image, so that the lungs of a cropped volume are found as well.
    """
    regions, _ = ndimage.label(plane < AERATED_HU)
    step = _coarse(spacing)
    coarse = regions[::step, ::step]
    reach = ndimage.distance_transform_edt(np.pad(coarse > 0, 1), sampling=(step * spacing[0], step * spacing[1]))
    sizes = np.bincount(regions.ravel()) * spacing[0] * spacing[1]
    kept = np.zeros(len(sizes), bool)
    for region in np.flatnonzero(sizes >= SMALLEST_LUNG_MM2):
        points = np.argwhere(coarse == region)
        if region == 0 or len(points) == 0:
            continue
        rows, columns = points.T
        kept[region] = (
            2 * reach[rows + 1, columns + 1].max() >= THINNEST_LUNG_MM
            and np.median(plane[::step, ::step][rows, columns]) > AIR_HU
            and np.mean(_depth(points * step * np.asarray(spacing), body) > 0) > 0.5
        )
    return np.asarray(kept[regions])


def _coarse(spacing: tuple[float, float]) -> int:
    return max(1, round(COARSE_MM / max(spacing)))


def _hull(points: Floats) -> Floats | None:
    """Lines of the convex hull of points (N, 2); None when they lie on one line."""
    try:
        return np.asarray(ConvexHull(points).equations)
    except (QhullError, ValueError):
        return None


def _depth(points: Floats, hull: Floats) -> Floats:
    """Distance in mm of points (N, 2) to the hull, positive inside, at least that outside negative."""
    return np.asarray(-(points @ hull[:, :2].T + hull[:, 2]).max(axis=1))
