"""Synthetic CT: files that other libraries read alike, the same bytes for a seed, tasks that no simple rule solves."""

import csv
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from hounsfield.errors import InputError
from hounsfield.phantom import cohort, make_patient, write_cohort
from hounsfield.phantom.abdomen import Abdomen
from hounsfield.phantom.chest import Chest
from hounsfield.phantom.spine import L3

SEED = 11
SIZE = 48
THICKNESS = 10.0


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Cases files of two small cohorts of two patients."""
    root = tmp_path_factory.mktemp("phantom")
    return {
        region: write_cohort(region, root / region, 2, SEED, SIZE, THICKNESS, workers=1)
        for region in ("chest", "abdomen")
    }


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_series(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    names = reader.GetGDCMSeriesFileNames(str(folder))
    assert len(names) == len(list(folder.iterdir()))
    reader.SetFileNames(names)
    return reader.Execute()


@pytest.mark.parametrize("region", ["chest", "abdomen"])
def test_simpleitk_reads_the_scan_back(cases: dict[str, Path], region: str) -> None:
    for number, row in enumerate(rows(cases[region]), start=1):
        image = read_series(cases[region].parent / row["image"])
        scan, _ = make_patient(region, number, SEED, SIZE, THICKNESS)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), scan.hu)
        s = scan.settings
        np.testing.assert_allclose(image.GetSpacing(), (s.pixel, s.pixel, s.spacing), rtol=1e-6)
        assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
        assert scan.hu.min() >= -1024
        assert scan.hu.max() <= 3071


@pytest.mark.parametrize("region", ["chest", "abdomen"])
def test_headers_are_valid_ct(cases: dict[str, Path], region: str) -> None:
    folder = cases[region].parent
    for row in rows(cases[region]):
        headers = [pydicom.dcmread(path) for path in sorted((folder / row["image"]).iterdir())]
        first = headers[0]
        assert {h.file_meta.TransferSyntaxUID for h in headers} == {pydicom.uid.ExplicitVRLittleEndian}
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            assert len({h[keyword].value for h in headers}) == 1
        uids = [h.SOPInstanceUID for h in headers]
        assert len(set(uids)) == len(uids)
        assert all(uid.is_valid for uid in (*uids, first.StudyInstanceUID, first.SeriesInstanceUID))
        # Type 1 and 2 of the modules that CT Image Storage requires (DICOM PS3.3 table A.3-1).
        required = (
            "SOPClassUID StudyDate StudyTime AccessionNumber Modality Manufacturer ReferringPhysicianName PatientName "
            "PatientID PatientBirthDate PatientSex KVP AcquisitionNumber StudyID SeriesNumber InstanceNumber "
            "PatientPosition ImagePositionPatient ImageOrientationPatient PositionReferenceIndicator PixelSpacing "
            "SliceThickness ImageType SamplesPerPixel PhotometricInterpretation Rows Columns BitsAllocated BitsStored "
            "HighBit PixelRepresentation RescaleIntercept RescaleSlope RescaleType PixelData"
        )
        assert [keyword for keyword in required.split() if keyword not in first] == []
        assert first.PatientID == row["patient"]
        assert float(first.SliceThickness) == THICKNESS
        assert sorted(h.InstanceNumber for h in headers) == list(range(1, len(headers) + 1))


def test_seg_marks_the_tumour_on_its_source_images(cases: dict[str, Path]) -> None:
    folder = cases["chest"].parent
    for number, row in enumerate(rows(cases["chest"]), start=1):
        seg = hd.seg.segread(folder / row["label"])
        headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in (folder / row["image"]).iterdir()]
        headers.sort(key=lambda header: float(header.ImagePositionPatient[2]))
        uids = [header.SOPInstanceUID for header in headers]
        assert {uid for _, _, uid in seg.get_source_image_uids()} <= set(uids)
        assert seg.FrameOfReferenceUID == headers[0].FrameOfReferenceUID
        assert seg.StudyInstanceUID == headers[0].StudyInstanceUID
        mask = seg.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True)
        scan, _ = make_patient("chest", number, SEED, SIZE, THICKNESS)
        np.testing.assert_array_equal(mask, scan.mask)
        assert 0 < mask.sum() < 0.02 * mask.size


def test_nifti_lies_on_the_grid_of_the_series(cases: dict[str, Path]) -> None:
    folder = cases["abdomen"].parent
    for number, row in enumerate(rows(cases["abdomen"]), start=1):
        label, image = sitk.ReadImage(str(folder / row["label"])), read_series(folder / row["image"])
        assert label.GetPixelID() == sitk.sitkUInt8
        assert label.GetSize() == image.GetSize()
        for grid in ("GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(label, grid)(), getattr(image, grid)(), atol=1e-3)
        scan, _ = make_patient("abdomen", number, SEED, SIZE, THICKNESS)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(label), scan.mask)
        assert set(np.unique(scan.mask)) == {0, int(row["label_value"])}


@pytest.mark.parametrize("region", ["chest", "abdomen"])
def test_same_seed_same_bytes_whatever_the_number_of_patients(
    cases: dict[str, Path], tmp_path: Path, region: str
) -> None:
    again = write_cohort(region, tmp_path / "again", 3, SEED, SIZE, THICKNESS, workers=2)
    for row in rows(cases[region]):
        patient = Path(row["image"]).parent
        files = sorted(path for path in (cases[region].parent / patient).rglob("*") if path.is_file())
        assert len(files) > 10
        for path in files:
            copy = again.parent / path.relative_to(cases[region].parent)
            assert path.read_bytes() == copy.read_bytes(), path.name
    other, _ = make_patient(region, 1, SEED + 1, SIZE, THICKNESS)
    same, _ = make_patient(region, 1, SEED, SIZE, THICKNESS)
    assert not np.array_equal(other.hu[:5], same.hu[:5])


def test_nothing_stays_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = cohort._write_patient

    def fail_at_second(region: str, number: int, *args: object) -> None:
        if number == 2:
            raise OSError("disk full")
        write(region, number, *args)

    monkeypatch.setattr(cohort, "_write_patient", fail_at_second)
    with pytest.raises(OSError, match="disk full"):
        write_cohort("abdomen", tmp_path / "out", 3, SEED, 32, 10.0, workers=1)
    assert list(tmp_path.iterdir()) == []


def test_existing_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(InputError, match="not an empty folder"):
        write_cohort("chest", tmp_path, 1, SEED)
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize(
    "bad", [{"patients": 0}, {"seed": -1}, {"size": 8}, {"slice_thickness": 0.0}, {"slice_thickness": float("nan")}]
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected"):
        write_cohort("chest", tmp_path / "out", **{"patients": 1, "seed": 1, **bad})


def test_tumours_lie_in_the_lung_and_on_the_chest_wall() -> None:
    tumours = [t for number in range(1, 13) for t in chest(number)[0].tumours]
    attached = np.mean([t.attached for t in tumours])
    assert 0.25 < attached < 0.75
    diameters = 2 * np.array([t.radius for t in tumours])
    assert diameters.min() >= 15
    assert diameters.max() <= 60
    assert diameters.max() / diameters.min() > 2


def test_scans_differ_in_field_and_geometry() -> None:
    settings = [abdomen(number)[1] for number in range(1, 25)]
    for name in ("pixel", "slices", "table_y", "placement", "noise", "first_z"):
        assert len({getattr(s, name) for s in settings}) > 20 or name == "slices", name
    assert len({s.slices for s in settings}) > 8
    for name in ("spacing", "kernel", "vendor", "feet_first", "descending"):
        assert len({getattr(s, name) for s in settings}) > 1, name


def chest(number: int) -> tuple[Chest, cohort.Settings]:
    anatomy, settings = cohort.prepare("chest", number, SEED, SIZE)
    assert isinstance(anatomy, Chest)
    return anatomy, settings


def abdomen(number: int) -> tuple[Abdomen, cohort.Settings]:
    anatomy, settings = cohort.prepare("abdomen", number, SEED, SIZE)
    assert isinstance(anatomy, Abdomen)
    return anatomy, settings


def labelled_slices(anatomy: Abdomen, settings: cohort.Settings) -> np.ndarray:
    z = settings.first_z + settings.spacing * np.arange(settings.slices)
    return np.flatnonzero([anatomy.labelled(value) for value in z])


def test_l3_is_marked_on_the_central_slices_of_its_body() -> None:
    counts, prevalence = [], []
    for number in range(1, 25):
        anatomy, settings = abdomen(number)
        index = labelled_slices(anatomy, settings)
        low, high = anatomy.spine.body_span(L3)
        middle = settings.first_z + settings.spacing * index.mean()
        assert abs(middle - (low + high) / 2) <= settings.spacing / 2 + 1e-6
        counts.append(len(index))
        prevalence.append(len(index) / settings.slices)
    assert 3 <= np.mean(counts) <= 4
    assert 0.03 <= np.mean(prevalence) <= 0.06


def test_position_in_the_scan_does_not_find_l3() -> None:
    """Predicting every patient at the other patients' median relative position misses by more than two slices."""
    middle, length = [], []
    for number in range(1, 25):
        anatomy, settings = abdomen(number)
        middle.append(labelled_slices(anatomy, settings).mean())
        length.append(settings.slices - 1)
    centre, last = np.array(middle), np.array(length)
    for scale in (last, np.ones_like(last)):
        for end in (centre, last - centre):
            share = end / scale
            guess = np.array([np.median(np.delete(share, i)) for i in range(len(share))]) * scale
            assert np.abs(guess - end).mean() > 2


def test_bone_area_does_not_find_l3() -> None:
    """The slice whose area of bone is closest to that of the other patients' L3 is elsewhere in the scan."""
    scans = [make_patient("abdomen", number, SEED, 48, 6.0)[0] for number in range(1, 6)]
    areas = [(scan.hu > 250).sum(axis=(1, 2)) * scan.settings.pixel**2 for scan in scans]
    centres = [np.flatnonzero(scan.mask.any(axis=(1, 2))).mean() for scan in scans]
    typical = [area[round(centre)] for area, centre in zip(areas, centres, strict=True)]
    errors = [
        abs(np.abs(area - np.median(np.delete(typical, i))).argmin() - centres[i]) for i, area in enumerate(areas)
    ]
    assert np.mean(errors) > 3


def test_no_threshold_finds_the_tumours() -> None:
    """The best interval of HU on the whole cohort, searched with the labels in hand, reaches F1 below 0.2 even when
    only slices with tumour and only the box around the lungs are looked at: muscle, vessels and heart are as dense."""
    inside, outside = np.zeros(256), np.zeros(256)
    edges = np.linspace(-1024, 1024, 257)
    for number in range(1, 6):
        scan, _ = make_patient("chest", number, SEED, SIZE, THICKNESS)
        rows_, columns = (
            np.flatnonzero(((scan.hu > -930) & (scan.hu < -700)).sum(axis=axis) > 40) for axis in ((0, 2), (0, 1))
        )
        box = np.s_[scan.mask.any(axis=(1, 2)), rows_[0] : rows_[-1], columns[0] : columns[-1]]
        hu, mask = scan.hu[box], scan.mask[box] > 0
        inside += np.histogram(hu[mask], edges)[0]
        outside += np.histogram(hu[~mask], edges)[0]
    below = np.concatenate([[0], np.cumsum(inside)])
    wrong = np.concatenate([[0], np.cumsum(outside)])
    true = below[None, :] - below[:, None]
    false = wrong[None, :] - wrong[:, None]
    f1 = 2 * true / np.maximum(true + false + inside.sum(), 1)
    assert f1.max() < 0.2
