"""Predictions on small CT series: masks, DICOM objects, figures, refusals and what is left out of them."""

import json
from pathlib import Path
from typing import Any

import dicom_factory as factory
import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image
from predict_networks import (
    BOXES,
    BRIGHT_HU,
    DATASET,
    SHAPE,
    SPACING,
    WEIGHTS_HASH,
    dicom_errors,
    leaves,
    predict,
    result,
    scan,
)
from pydicom.dataset import FileDataset

from hounsfield import __version__


@pytest.fixture(autouse=True)
def _pseudonym_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUNSFIELD_PSEUDONYM_KEY", "a key of the tests")


def truth() -> npt.NDArray[np.uint8]:
    mask = np.zeros(SHAPE, np.uint8)
    for number, box in BOXES.items():
        mask[box] = number
    return mask


@pytest.fixture(scope="module")
def lung(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[FileDataset], dict[str, Any]]:
    """Result folder, source images and figures of a series with two boxes."""
    folder = tmp_path_factory.mktemp("lung")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOUNSFIELD_PSEUDONYM_KEY", "a key of the tests")
        sources = factory.write_series(folder / "in" / "Roentgen" / "ct", scan())
        (outcome,) = predict(folder / "in", folder / "out")
    assert outcome.status == "predicted"
    place, figures = result(folder / "out")
    assert place.name == outcome.series == figures["series"]
    return place, sources, figures


def test_figures_are_those_of_the_boxes(lung: tuple[Path, list[FileDataset], dict[str, Any]]) -> None:
    figures = lung[2]
    large, small = figures["lesions"]
    assert large["volume_ml"] == pytest.approx(6 * 10 * 20 * 2.5 * 0.8 * 0.8 / 1000, abs=1e-6)
    assert large["longest_axial_diameter_mm"] == pytest.approx(np.hypot(8, 16), abs=1e-6)
    assert large["perpendicular_mm"] == pytest.approx(np.hypot(8, 16) / 2, abs=1e-6)
    assert (large["first_slice"], large["last_slice"], large["slice"], large["position_mm"]) == (3, 8, 3, 105.0)
    assert small["voxels"] == 2 * 4 * 3
    assert figures["total"]["lesions"] == 2
    assert figures["total"]["volume_ml"] == pytest.approx(large["volume_ml"] + small["volume_ml"], abs=1e-6)
    assert figures["total"]["longest_axial_diameter_mm"] == large["longest_axial_diameter_mm"]
    assert figures["total"]["perpendicular_mm"] == large["perpendicular_mm"]
    assert "Research use only" in figures["use"]
    with Image.open(lung[0] / "largest-section.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert (pixels[..., 0] - pixels[..., 1] > 100).sum() > 50


def test_segmentation_loads_over_the_images(lung: tuple[Path, list[FileDataset], dict[str, Any]]) -> None:
    folder, sources, _ = lung
    path = folder / "dicom" / "segmentation.dcm"
    seg = hd.seg.segread(path)
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["Neoplasm 1", "Neoplasm 2"]
    assert {item.SegmentedPropertyTypeCodeSequence[0].CodeValue for item in seg.SegmentSequence} == {"108369006"}
    assert seg.StudyInstanceUID == sources[0].StudyInstanceUID
    assert seg.PatientID == factory.PATIENT_ID
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == sources[0].SeriesInstanceUID
    by_source = seg.get_pixels_by_source_instance([item.SOPInstanceUID for item in sources], combine_segments=True)
    np.testing.assert_array_equal(by_source, truth())
    plain, frames = pydicom.dcmread(path), np.zeros(SHAPE, np.uint8)
    for frame, pixels in zip(plain.PerFrameFunctionalGroupsSequence, plain.pixel_array, strict=True):
        z = float(frame.PlanePositionSequence[0].ImagePositionPatient[2])
        number = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        frames[round((z - 100) / SPACING[0])] += (pixels * number).astype(np.uint8)
    np.testing.assert_array_equal(frames, truth())


def test_segmentation_lies_on_the_images_in_simpleitk(
    lung: tuple[Path, list[FileDataset], dict[str, Any]],
) -> None:
    folder, sources, _ = lung
    placed = hd.seg.segread(folder / "dicom" / "segmentation.dcm").get_volume(combine_segments=True)
    placed = placed.to_patient_orientation("HPL")
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(Path(sources[0].filename).parent))
    image = sitk.ReadImage(files)
    start = placed.map_indices_to_reference(np.array([[0, 0, 0]]))[0]
    index = image.TransformPhysicalPointToIndex(start.tolist())
    array = sitk.GetArrayFromImage(image)
    depth, rows, columns = placed.array.shape
    block = (slice(index[2], index[2] + depth), slice(index[1], index[1] + rows), slice(index[0], index[0] + columns))
    np.testing.assert_array_equal(placed.array > 0, array[block] == BRIGHT_HU)
    assert (array == BRIGHT_HU).sum() == (placed.array > 0).sum()
    assert placed.spacing == pytest.approx(image.GetSpacing()[::-1])
    raw = sitk.ReadImage(str(folder / "dicom" / "segmentation.dcm"))
    assert (sitk.GetArrayFromImage(raw) > 0).sum() == (truth() > 0).sum()


def test_report_has_the_figures_and_refers_to_segments(lung: tuple[Path, list[FileDataset], dict[str, Any]]) -> None:
    folder, sources, figures = lung
    document = hd.sr.srread(folder / "dicom" / "report.dcm")
    content = document.content
    assert document.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    volumes = content.get_volumetric_roi_measurement_groups()
    *diameters, total = content.get_image_measurement_groups()
    seg = pydicom.dcmread(folder / "dicom" / "segmentation.dcm")
    for number, (group, lines, lesion) in enumerate(zip(volumes, diameters, figures["lesions"], strict=True), start=1):
        measured = [*group.get_measurements(), *lines.get_measurements()]
        values = {item.name.meaning: (float(item.value), item.unit.value) for item in measured}
        assert values == {
            "Volume": (pytest.approx(lesion["volume_ml"], abs=1e-6), "mL"),
            "Long axis": (pytest.approx(lesion["longest_axial_diameter_mm"], abs=1e-6), "mm"),
            "Perpendicular Axis": (pytest.approx(lesion["perpendicular_mm"], abs=1e-6), "mm"),
        }
        segment = group.referenced_segment
        assert segment.referenced_sop_instance_uid == seg.SOPInstanceUID
        assert segment.referenced_segment_numbers in (number, [number])
        assert group.tracking_uid == lines.tracking_uid == seg.SegmentSequence[number - 1].TrackingUID
    values = [float(item.value) for item in total.get_measurements()]
    names = ("volume_ml", "longest_axial_diameter_mm", "perpendicular_mm")
    assert values == pytest.approx([figures["total"][name] for name in names], abs=1e-6)
    assert document.StudyInstanceUID == sources[0].StudyInstanceUID


def test_every_object_names_model_version_data_and_code(
    lung: tuple[Path, list[FileDataset], dict[str, Any]],
) -> None:
    folder, _, figures = lung
    for text in (
        leaves(pydicom.dcmread(folder / "dicom" / "segmentation.dcm")),
        leaves(pydicom.dcmread(folder / "dicom" / "report.dcm")),
        json.dumps(figures["provenance"]),
    ):
        for part in ("ward lung-tumour", DATASET, WEIGHTS_HASH, __version__):
            assert part in text
    assert figures["provenance"]["model_version"] == "3"


def test_nothing_outside_the_dicom_folder_identifies(
    lung: tuple[Path, list[FileDataset], dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    folder, sources, _ = lung
    secrets = {factory.PATIENT_ID, "Roentgen", "Wilhelmina", factory.BIRTH_DATE, sources[0].StudyInstanceUID}
    secrets |= {sources[0].SeriesInstanceUID, factory.ISSUER} | {item.SOPInstanceUID for item in sources}
    written = [path for path in folder.parent.rglob("*") if path.is_file()]
    for path in written:
        assert not any(secret in str(path.relative_to(folder.parent)) for secret in secrets)
        if path.parent.name != "dicom":
            content = path.read_bytes()
            assert not any(secret.encode() in content for secret in secrets)
    assert {path.name for path in written} == {
        "manifest.json", "result.json", "results.json", "largest-section.png", "segmentation.dcm", "report.dcm"
    }  # fmt: skip


@pytest.mark.parametrize(
    "orientation",
    [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, 1, 0), (1, 0, 0, 0, -1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1)],
    ids=["axial", "prone", "upside-down", "sagittal", "coronal"],
)
def test_mask_is_in_the_geometry_of_the_source(orientation: tuple[float, ...], tmp_path: Path) -> None:
    hu = np.full((40, 40, 40), -800, np.int16)
    hu[2:5, 10:30, 4:9] = hu[5, 10:14, 4:9] = BRIGHT_HU
    sources = factory.write_series(tmp_path / "in", hu, orientation=orientation, spacing=(2.0, 0.5, 0.75))
    predict(tmp_path / "in", tmp_path / "out")
    folder, figures = result(tmp_path / "out")
    seg = hd.seg.segread(folder / "dicom" / "segmentation.dcm")
    got = seg.get_pixels_by_source_instance([item.SOPInstanceUID for item in sources], combine_segments=True)
    np.testing.assert_array_equal(got > 0, hu == BRIGHT_HU)
    assert figures["total"]["volume_ml"] == pytest.approx((hu == BRIGHT_HU).sum() * 2.0 * 0.5 * 0.75 / 1000, abs=1e-6)


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1)], ids=["axial", "sagittal"])
def test_diameters_of_the_report_are_lines_on_the_lesion_in_patient_coordinates(
    orientation: tuple[float, ...], tmp_path: Path
) -> None:
    """SimpleITK maps the lines' ends to voxels: they lie at corners of the box, in one axial plane."""
    inside = (slice(10, 16), slice(12, 22), slice(15, 35))
    hu = np.full((40, 40, 40), -800, np.int16)
    hu[inside] = BRIGHT_HU
    sources = factory.write_series(tmp_path / "in", hu, orientation=orientation, spacing=(2.0, 0.5, 0.75))
    predict(tmp_path / "in", tmp_path / "out")
    folder, figures = result(tmp_path / "out")
    group, _ = hd.sr.srread(folder / "dicom" / "report.dcm").content.get_image_measurement_groups()
    image = sitk.ReadImage([str(item.filename) for item in sources])
    lines = {}
    for item in group.get_measurements():
        (coordinates,) = item.referenced_coordinates
        assert coordinates.frame_of_reference_uid == sources[0].FrameOfReferenceUID
        ends = np.asarray(coordinates.value)
        assert np.linalg.norm(ends[1] - ends[0]) == pytest.approx(float(item.value), abs=1e-4)
        assert np.ptp(ends[:, 2]) == pytest.approx(0, abs=1e-6)
        for end in ends:
            index = np.array(image.TransformPhysicalPointToContinuousIndex(end.tolist()))[::-1]
            assert all(edge.start - 0.51 <= k <= edge.stop - 0.49 for k, edge in zip(index, inside, strict=True))
        lines[item.name.meaning] = ends[1] - ends[0]
    assert set(lines) == {"Long axis", "Perpendicular Axis"}
    assert float(lines["Long axis"] @ lines["Perpendicular Axis"]) == pytest.approx(0, abs=1e-3)
    assert figures["lesions"][0]["longest_axial_diameter_mm"] == pytest.approx(
        float(np.linalg.norm(lines["Long axis"])), abs=1e-4
    )


def test_no_lesion_gives_a_report_of_none_and_no_segmentation(tmp_path: Path) -> None:
    factory.write_series(tmp_path / "in", scan({}))
    (outcome,) = predict(tmp_path / "in", tmp_path / "out")
    folder, figures = result(tmp_path / "out")
    assert outcome.figures == {
        "lesions": 0,
        "volume_ml": 0.0,
        "longest_axial_diameter_mm": 0.0,
        "perpendicular_mm": 0.0,
    }
    assert figures["lesions"] == []
    assert [path.name for path in (folder / "dicom").iterdir()] == ["report.dcm"]
    content = hd.sr.srread(folder / "dicom" / "report.dcm").content
    assert content.get_volumetric_roi_measurement_groups() == []
    (total,) = content.get_image_measurement_groups()
    assert float(total.get_measurements()[0].value) == 0


@pytest.mark.parametrize("name", ["segmentation.dcm", "report.dcm"])
def test_dciodvfy_finds_no_error(lung: tuple[Path, list[FileDataset], dict[str, Any]], name: str) -> None:
    assert dicom_errors(lung[0] / "dicom" / name) == []
