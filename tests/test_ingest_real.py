"""Ingest against the documented facts of real CT volumes with labels made by others."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from hounsfield.components.dicom_ingest.run import Config, run
from hounsfield.data.series_store import SeriesStore
from hounsfield.dicom.geometry import Grid
from hounsfield.dicom.headers import InputFile, SliceHeader, read_header
from hounsfield.dicom.pixels import read_slice
from hounsfield.dicom.reasons import UnusableError
from hounsfield.dicom.seg import read_seg
from hounsfield.dicom.selection import Selection
from hounsfield.errors import InputError

pytestmark = pytest.mark.real_data
EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
TOTAL = "l3_totalsegmentator/tests/reference_files"


@pytest.fixture(autouse=True)
def _pseudonym_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUNSFIELD_PSEUDONYM_KEY", "a key of the tests")


def ingest(data: Path, out: Path, **config: object) -> SeriesStore:
    run(Config.model_validate(config), [str(data)], None, out)
    return SeriesStore(out)


def ingest_cases(real_data: Path, rows: list[str], folder: Path, **config: object) -> SeriesStore:
    lines = ["image,label,label_value", *(row.replace("@", f"{real_data}/") for row in rows)]
    (folder / "cases.csv").write_text("\n".join(lines) + "\n")
    run(Config.model_validate(config), [], str(folder / "cases.csv"), folder / "out")
    return SeriesStore(folder / "out")


def oriented(image: sitk.Image) -> np.ndarray:
    """Array (slice, row, column): inferior to superior, anterior to posterior, right to left."""
    return sitk.GetArrayFromImage(sitk.DICOMOrient(image, "LPS"))


def series_of(folder: Path) -> np.ndarray:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return oriented(reader.Execute())


def test_rtstruct_of_ibsi_gives_the_voxels_of_its_nifti_mask(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "lung_dicom_rtstruct_ibsi"
    store = ingest(folder / "dicom", tmp_path / "out", roi="GTV-1")
    row = store.series[0]
    assert (row.label_voxels, row.label_source, row.label_last - row.label_first + 1) == (125256, "rtstruct", 26)
    hu, mask = store.volume(row)
    np.testing.assert_array_equal(mask, oriented(sitk.ReadImage(str(folder / "nifti/mask/mask.nii.gz"))))
    np.testing.assert_array_equal(hu, oriented(sitk.ReadImage(str(folder / "nifti/image/phantom.nii.gz"))))


@pytest.mark.parametrize(
    "folder",
    [
        "abdomen_dicom_crlm_1004/CRLM-CT-1004/image",
        "lung_dicom_rtstruct_ibsi/dicom/image",
        f"{TOTAL}/example_ct_dicom",
        "dicom_seg_dcmqi/data/segmentations/ct-3slice",
        "mixed_modality_petct_delia_R01-005/04-19-1991-NA-PETCT Lung Cancer-34602/2.000000-CT Images-33027",
    ],
)
def test_hu_of_a_series_equal_simpleitk(real_data: Path, tmp_path: Path, folder: str) -> None:
    store = ingest(real_data / folder, tmp_path / "out")
    hu, _ = store.volume(store.series[0])
    reference = series_of(real_data / folder)
    padding = reference < -1024 if "padding" in store.series[0].flags else np.zeros(hu.shape, bool)
    np.testing.assert_array_equal(hu[~padding], reference[~padding])
    assert (hu[padding] == -1024).all()


def test_hu_of_every_readable_ct_slice_equal_simpleitk(real_data: Path) -> None:
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    compared, syntaxes = 0, set()
    for path in sorted(real_data.rglob("*")):
        if not path.is_file() or "crlm" in str(path) or "rtstruct" in str(path):
            continue
        try:
            header = read_header(InputFile(path, path.name))
        except UnusableError:
            continue
        if not isinstance(header, SliceHeader):
            continue
        out = np.empty((header.rows, header.columns), np.int16)
        flags = read_slice(header, out)
        reference = np.rint(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0].astype(float))
        kept = ~((out == -1024) & (reference < -1024)) if "padding" in flags else slice(None)
        np.testing.assert_array_equal(out[kept], reference[kept], err_msg=path.name)
        compared += 1
        syntaxes.add(header.syntax)
    assert compared >= 110
    assert len(syntaxes) >= 15


def test_quick_header_walk_equals_pydicom(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [path for path in sorted(real_data.rglob("*")) if path.is_file() and path.suffix not in (".gz", ".nrrd")]

    def headers() -> dict[Path, object]:
        found: dict[Path, object] = {}
        for path in files:
            try:
                header = read_header(InputFile(path, path.name))
            except UnusableError as error:
                found[path] = error.reason
                continue
            if isinstance(header, SliceHeader) and header.padding is not None:
                header = replace(header, padding=header.padding % 2**16)
            found[path] = header
        return found

    quick = headers()
    monkeypatch.setattr("hounsfield.dicom.elements.walk", lambda *_: None)
    slow = headers()
    assert sum(isinstance(header, SliceHeader) for header in quick.values()) > 150
    assert quick == slow


def test_l3_ranges_agree(real_data: Path, tmp_path: Path) -> None:
    rows = [
        f"@{TOTAL}/example_ct.nii.gz,@{TOTAL}/spine_report/example_ct_report/totalseg.nii.gz,29",
        "@l3_verse/sub-verse005_ct.nii.gz,@l3_verse/sub-verse005_seg-vert_msk.nii.gz,22",
        "@l3_verse/sub-verse006_ct.nii.gz,@l3_verse/sub-verse006_seg-vert_msk.nii.gz,22",
    ]
    store = ingest_cases(real_data, rows, tmp_path)
    by_shape = {row.shape: row for row in store.series}
    total, verse = by_shape[112, 101, 122], by_shape[180, 103, 106]
    assert (total.label_first, total.label_last) == (65, 79)
    assert verse.label_last - verse.label_first + 1 == 59
    assert store.manifest["rejected"] == {"empty-label": 2}
    for row, image in ((total, f"{TOTAL}/example_ct.nii.gz"), (verse, "l3_verse/sub-verse005_ct.nii.gz")):
        np.testing.assert_array_equal(store.volume(row)[0], oriented(sitk.ReadImage(str(real_data / image))))
    spine = oriented(sitk.ReadImage(str(real_data / "l3_verse/sub-verse005_seg-vert_msk.nii.gz")))
    np.testing.assert_array_equal(store.volume(verse)[1], spine == 22)
    assert len(ingest_cases(real_data, rows, tmp_path, allow_empty_labels=True).series) == 3


def test_nrrd_and_nifti_tumour_labels(real_data: Path, tmp_path: Path) -> None:
    lidc = "lung_dicom_LIDC_concept-to-clinic/LIDC-IDRI-0001"
    rows = [
        "@lung_nrrd_pyradiomics/data/lung1_image.nrrd,@lung_nrrd_pyradiomics/data/lung1_label.nrrd,",
        f"@{lidc},@{lidc}/mask_2_readers.nii.gz,",
        f"@{TOTAL}/example_ct_dicom,@{TOTAL}/example_seg_dicom.nii.gz,5",
    ]
    store = ingest_cases(real_data, rows, tmp_path)
    by_slices = {row.slices: row for row in store.series}
    assert (by_slices[48].label_voxels, by_slices[48].label_first, by_slices[48].label_last) == (837, 32, 34)
    assert by_slices[16].label_voxels == 5428
    seg = oriented(sitk.ReadImage(str(real_data / TOTAL / "example_seg_dicom.nii.gz")))
    np.testing.assert_array_equal(store.volume(by_slices[20])[1], seg == 5)


def test_lidc_mask_is_chosen_by_its_file_name(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "lung_dicom_LIDC_concept-to-clinic" / "LIDC-IDRI-0001"
    assert ingest(folder, tmp_path / "any", roi="any_reader").series[0].label_voxels == 6547
    with pytest.raises(InputError, match="ambiguous-label"):
        ingest(folder, tmp_path / "both")


def test_seg_of_dcmqi_equal_their_label_maps(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "dicom_seg_dcmqi" / "data" / "segmentations"
    ct = folder / "ct-3slice"
    lines = ["image,label,label_value"]
    lines += [f"{ct},{folder / 'liver.dcm'},"]
    (tmp_path / "cases.csv").write_text("\n".join(lines) + "\n")
    run(Config(), [], str(tmp_path / "cases.csv"), tmp_path / "out")
    store = SeriesStore(tmp_path / "out")
    np.testing.assert_array_equal(
        store.volume(store.series[0])[1], oriented(sitk.ReadImage(str(folder / "liver_seg.nrrd"))) > 0
    )
    parts = [oriented(sitk.ReadImage(str(folder / f"partial_overlaps-{n}.nrrd"))) for n in (1, 2, 3)]
    values = sorted({int(value) for part in parts for value in np.unique(part) if value})
    row = store.series[0]
    grid = Grid(row.shape, np.array(row.origin), np.array(row.direction).reshape(3, 3), np.array(row.spacing))
    for value in values:
        mask = read_seg(folder / "partial_overlaps.dcm", grid, Selection(label_value=value))
        np.testing.assert_array_equal(mask, np.any([part == value for part in parts], axis=0))


def test_seg_toy_of_dcmqi(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "dicom_seg_dcmqi" / "data" / "segmentations" / "24x38x3"
    store = ingest(folder, tmp_path / "out")
    label = oriented(sitk.ReadImage(str(folder / "nrrd" / "label.nrrd")))
    np.testing.assert_array_equal(store.volume(store.series[0])[1], label > 0)
    assert store.manifest["rejected"] == {"label-without-image": 1, "multi-frame": 1}


@pytest.mark.parametrize("name", ["binary", "binary_overlap", "binary_fractional"])
def test_seg_of_highdicom_equal_its_own_reading(real_data: Path, name: str) -> None:
    import highdicom

    path = real_data / "dicom_seg_highdicom" / "data" / "test_files" / f"seg_image_ct_{name}.dcm"
    seg = highdicom.seg.segread(path)
    frames = seg.get_pixels_by_source_instance(
        source_sop_instance_uids=[uid for _, _, uid in seg.get_source_image_uids()],
        combine_segments=False,
        ignore_spatial_locations=True,
    )
    groups = [frame.PlanePositionSequence[0].ImagePositionPatient for frame in seg.PerFrameFunctionalGroupsSequence]
    origin = min(groups, key=lambda position: position[2])
    grid = Grid((400, 16, 16), np.array(origin, float), np.eye(3)[::-1], np.array([1.25, 0.488281, 0.488281]))
    for segment in range(1, frames.shape[-1] + 1):
        mask = read_seg(path, grid, Selection(label_value=segment))
        assert mask.sum() == frames[..., segment - 1].sum() > 0


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("gantry_tilt_philips", {"gantry-tilt": 20, "localizer": 1, "not-ct": 2, "not-dicom": 2}),
        ("geometry_faults_dicom2nifti", {"gantry-tilt": 4, "missing-slices": 4, "not-ct": 4, "not-dicom": 1}),
        ("mixed_modality_petct_delia_R01-005", {"not-ct": 22, "not-dicom": 1}),
    ],
)
def test_faulty_and_foreign_series_have_their_reason(
    real_data: Path, tmp_path: Path, folder: str, expected: dict[str, int]
) -> None:
    run(
        Config(),
        [str(real_data / folder), str(real_data / "abdomen_dicom_crlm_1004/CRLM-CT-1004")],
        None,
        tmp_path / "o",
    )
    assert SeriesStore(tmp_path / "o").manifest["rejected"] == expected


@pytest.mark.parametrize(("name", "cases"), [("lung-real.csv", 4), ("l3-real.csv", 3)])
def test_the_cases_files_of_the_documentation(real_data: Path, tmp_path: Path, name: str, cases: int) -> None:
    text = (EXAMPLES / name).read_text().replace("../../../shared/data", str(real_data))
    (tmp_path / name).write_text(text)
    run(Config(allow_empty_labels=True), [], str(tmp_path / name), tmp_path / "out")
    store = SeriesStore(tmp_path / "out")
    assert len({row.patient for row in store.series}) == len(store.series) == cases
