"""Volume and diameters of lesions: shapes with known sizes, and SimpleITK."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
from scipy.ndimage import label

from hounsfield.predict.lesions import components, diameters, measure

SPACING = (2.5, 0.8, 0.6)


def volume(shape: tuple[int, int, int] = (8, 40, 50)) -> npt.NDArray[np.bool_]:
    return np.zeros(shape, bool)


def ellipse(half_row: float, half_column: float, angle: float, size: int = 160) -> npt.NDArray[np.bool_]:
    """Pixels whose centre lies in an ellipse with these half axes in pixels, turned by `angle`."""
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    along = rows * math.cos(angle) + columns * math.sin(angle)
    across = columns * math.cos(angle) - rows * math.sin(angle)
    return np.asarray((along / half_row) ** 2 + (across / half_column) ** 2 <= 1)


def shape_statistics(mask: npt.NDArray[Any], spacing: tuple[float, ...]) -> Any:
    """SimpleITK's shape statistics of a mask whose lesions have the values 1..n."""
    image = sitk.GetImageFromArray(mask.astype(np.uint16))
    image.SetSpacing(tuple(reversed(spacing)))
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.ComputeFeretDiameterOn()
    statistics.Execute(image)
    return statistics


@pytest.mark.parametrize(("depth", "height", "width"), [(1, 1, 1), (3, 4, 9), (5, 12, 6), (2, 1, 20), (4, 7, 7)])
def test_a_box_measures_its_edges(depth: int, height: int, width: int) -> None:
    mask = volume()
    mask[2 : 2 + depth, 5 : 5 + height, 8 : 8 + width] = True
    (lesion,) = measure(components(mask)[0], SPACING)
    a, b = height * SPACING[1], width * SPACING[2]
    assert lesion.voxels == depth * height * width
    assert lesion.volume_ml == pytest.approx(depth * SPACING[0] * a * b / 1000, rel=1e-12)
    assert lesion.diameters.longest_mm == pytest.approx(math.hypot(a, b), rel=1e-12)
    assert lesion.diameters.perpendicular_mm == pytest.approx(min(a, b) / max(a, b) * math.hypot(a, b), rel=1e-9)
    assert (lesion.slice, lesion.first_slice, lesion.last_slice) == (2, 2, 1 + depth)


@pytest.mark.parametrize("angle", [0.0, 0.3, 0.8, 1.3, math.pi / 2])
@pytest.mark.parametrize(("half_row", "half_column"), [(60.0, 25.0), (20.0, 50.0), (30.0, 12.0)])
def test_a_digitised_ellipse_measures_its_axes_within_a_pixel_diagonal(
    half_row: float, half_column: float, angle: float
) -> None:
    edge = 0.7
    found = diameters(ellipse(half_row, half_column, angle), (edge, edge))
    major, minor = 2 * edge * max(half_row, half_column), 2 * edge * min(half_row, half_column)
    assert found.longest_mm == pytest.approx(major, abs=edge * math.sqrt(2))
    assert found.perpendicular_mm == pytest.approx(minor, abs=edge * math.sqrt(2))


def test_end_points_are_as_far_apart_as_the_diameters_and_perpendicular() -> None:
    mask = volume((3, 160, 160))
    mask[1] = ellipse(40, 18, 0.4)
    found = measure(components(mask)[0], SPACING)[0].diameters
    scale = np.array(SPACING[1:])
    longest, perpendicular = (
        (np.array(pair[1]) - np.array(pair[0])) * scale for pair in (found.longest, found.perpendicular)
    )
    assert np.linalg.norm(longest) == pytest.approx(found.longest_mm)
    assert np.linalg.norm(perpendicular) == pytest.approx(found.perpendicular_mm)
    assert abs(float(longest @ perpendicular)) < 1e-9
    ends = np.array([*found.longest, *found.perpendicular])
    assert np.abs(ends.mean(axis=0) - 79.5).max() < 1.5


def test_longest_diameter_is_the_feret_diameter_of_the_pixel_corners() -> None:
    """SimpleITK measures between pixel centres: a lattice with a pixel at every corner has its exact equal."""
    random = np.random.default_rng(4)
    for _ in range(5):
        blob = np.asarray(random.random((14, 17)) > 0.8)
        lattice = np.zeros((15, 18), bool)
        for down in (0, 1):
            for right in (0, 1):
                lattice[down : down + 14, right : right + 17] |= blob
        feret = shape_statistics(lattice, SPACING[1:]).GetFeretDiameter(1)
        found = diameters(blob, SPACING[1:])
        assert found.longest_mm == pytest.approx(feret, rel=1e-6)
        assert 0 < found.perpendicular_mm <= found.longest_mm + 1e-9


def test_perpendicular_is_the_widest_extent_found_by_sampling_the_hull() -> None:
    """The hull of random pixels cut by 4,000 lines across its longest diameter, by clipping half-planes."""
    from scipy.spatial import ConvexHull

    blob = np.asarray(np.random.default_rng(9).random((12, 9)) > 0.7)
    found = diameters(blob, (1.0, 1.0))
    points = np.array([(r + a, c + b) for r, c in np.argwhere(blob) for a in (-0.5, 0.5) for b in (-0.5, 0.5)])
    planes = ConvexHull(points).equations
    start, end = np.array(found.longest)
    along = (end - start) / np.linalg.norm(end - start)
    across = np.array([-along[1], along[0]])
    widest = 0.0
    for place in np.linspace(0, found.longest_mm, 4002)[1:-1]:
        rate, rest = planes[:, :2] @ across, planes[:, :2] @ (start + place * along) + planes[:, 2]
        high = min(-rest[rate > 1e-12] / rate[rate > 1e-12])
        low = max(-rest[rate < -1e-12] / rate[rate < -1e-12])
        widest = max(widest, high - low)
    assert found.perpendicular_mm == pytest.approx(widest, abs=0.01)


def test_volumes_and_lesions_are_those_of_simpleitk() -> None:
    mask = np.asarray(np.random.default_rng(1).random((9, 30, 34)) > 0.96)
    lesions, count = components(mask)
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    connected = sitk.ConnectedComponent(image, True)
    truth = sitk.GetArrayFromImage(connected)
    assert count == truth.max()
    for number in range(1, count + 1):
        inside = lesions == number
        value = truth[inside][0]
        np.testing.assert_array_equal(truth == value, inside)
    measured, statistics = measure(lesions, SPACING), shape_statistics(lesions, SPACING)
    for lesion in measured:
        assert lesion.volume_ml == pytest.approx(statistics.GetPhysicalSize(lesion.number) / 1000)
    assert [item.voxels for item in measured] == sorted((item.voxels for item in measured), reverse=True)


def test_lesions_that_touch_at_a_corner_are_one_and_apart_are_two() -> None:
    mask = volume()
    mask[1, 3, 3] = mask[2, 4, 4] = True
    assert components(mask)[1] == 1
    assert label(mask)[1] == 2
    mask[4, 4, 4] = True
    found = measure(components(mask)[0], SPACING)
    assert [lesion.voxels for lesion in found] == [2, 1]


def test_no_lesion_is_an_empty_list() -> None:
    lesions, count = components(volume())
    assert count == 0
    assert lesions.max() == 0
    assert measure(lesions, SPACING) == []
