"""SEG, RTSTRUCT and volume labels, and the cases file."""

import os
from pathlib import Path

import dicom_factory as factory
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import generate_uid

from hounsfield.components.dicom_ingest.run import Config, run
from hounsfield.data.series_store import SeriesStore
from hounsfield.dicom.rtstruct import fill_polygon
from hounsfield.dicom.selection import Selection
from hounsfield.errors import InputError

HU = factory.phantom()
MASK = np.zeros(HU.shape, bool)
MASK[2:5, 4:9, 3:11] = True
MASK[3, 6, 5] = False


@pytest.fixture(autouse=True)
def _pseudonym_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUNSFIELD_PSEUDONYM_KEY", "a key of the tests")


def ingest(data: Path, out: Path, **config: object) -> SeriesStore:
    run(Config.model_validate(config), [str(data)], None, out)
    return SeriesStore(out)


def ingest_cases(folder: Path, text: str, out: Path, **config: object) -> SeriesStore:
    (folder / "cases.csv").write_text(text)
    run(Config.model_validate(config), [], str(folder / "cases.csv"), out)
    return SeriesStore(out)


def mask_of(store: SeriesStore) -> np.ndarray:
    mask = store.volume(store.series[0])[1]
    assert mask is not None
    assert mask.dtype == np.uint8
    return mask


def write_volume(path: Path, array: np.ndarray, **geometry: object) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(geometry.get("spacing", (0.8, 0.8, 2.5)))
    image.SetOrigin(geometry.get("origin", (-40, -30, 100)))
    image.SetDirection(geometry.get("direction", (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def box(k: int, row: tuple[float, float], column: tuple[float, float]) -> np.ndarray:
    """A rectangle through voxel coordinates of the factory's default grid, in mm."""
    corners = [(column[0], row[0]), (column[1], row[0]), (column[1], row[1]), (column[0], row[1])]
    return np.array([(-40 + 0.8 * x, -30 + 0.8 * y, 100 + 2.5 * k) for x, y in corners])


def test_seg_frames_are_placed_by_position(tmp_path: Path) -> None:
    slices = factory.write_series(tmp_path / "ct", HU)
    factory.write_seg(tmp_path / "seg.dcm", slices, {"tumour": MASK})
    store = ingest(tmp_path, tmp_path / "out")
    np.testing.assert_array_equal(mask_of(store), MASK)
    row = store.series[0]
    assert (row.label_source, row.label_voxels, row.label_first, row.label_last) == ("seg", int(MASK.sum()), 2, 4)
    assert [item.label_voxels for item in store.slices()] == MASK.sum(axis=(1, 2)).tolist()


def test_seg_of_a_sagittal_series_follows_the_reorientation(tmp_path: Path) -> None:
    slices = factory.write_series(tmp_path / "ct", HU, orientation=(0, 1, 0, 0, 0, -1))
    factory.write_seg(tmp_path / "seg.dcm", slices, {"tumour": MASK})
    store = ingest(tmp_path, tmp_path / "out")
    np.testing.assert_array_equal(mask_of(store), MASK.transpose(1, 2, 0)[::-1, :, ::-1])


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, ["GTV-1", "GTV-2", "lung"]),
        ({"roi": "gtv-1"}, ["GTV-1"]),
        ({"roi": "GTV*"}, ["GTV-1", "GTV-2"]),
        ({"roi": "gtv-[12]|x"}, ["GTV-1", "GTV-2"]),
        ({"label_value": 3}, ["lung"]),
    ],
)
def test_segments_are_chosen_by_name_pattern_or_number(tmp_path: Path, config: dict, expected: list[str]) -> None:
    slices = factory.write_series(tmp_path / "ct", HU)
    segments = {"GTV-1": HU > 1200, "GTV-2": HU < -800, "lung": np.abs(HU) < 200}
    factory.write_seg(tmp_path / "seg.dcm", slices, segments)
    mask = mask_of(ingest(tmp_path, tmp_path / "out", **config))
    np.testing.assert_array_equal(mask, np.any([segments[name] for name in expected], axis=0))


def test_wanted_region_that_no_label_has(tmp_path: Path) -> None:
    slices = factory.write_series(tmp_path / "ct", HU)
    factory.write_seg(tmp_path / "seg.dcm", slices, {"tumour": MASK})
    with pytest.raises(InputError, match=r"no label has the wanted region .*not among: 1 tumour"):
        ingest(tmp_path, tmp_path / "out", roi="kidney")
    assert not (tmp_path / "out").exists()


def test_label_map_and_fractional_segmentations(tmp_path: Path) -> None:
    slices = factory.write_series(tmp_path / "ct", HU)
    factory.write_seg(tmp_path / "seg.dcm", slices, {"tumour": MASK, "node": MASK})
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    frames = [k for k in reversed(range(len(MASK))) if MASK[k].any()] * 2

    dataset.SegmentationType, dataset.MaximumFractionalValue = "FRACTIONAL", 200
    levels = np.stack([np.where(MASK[k], 100, 99) for k in frames]).astype(np.uint8)
    dataset.PixelData = levels.tobytes()
    dataset.save_as(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(mask_of(ingest(tmp_path, tmp_path / "out", roi="node")), MASK)

    dataset.SegmentationType, dataset.SOPClassUID = "LABELMAP", "1.2.840.10008.5.1.4.1.1.66.7"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.NumberOfFrames = len(frames) // 2
    dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[: len(frames) // 2]
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        del frame.SegmentIdentificationSequence
    labels = np.stack([np.where(MASK[k], 2, 1) for k in frames[: len(frames) // 2]]).astype(np.uint8)
    dataset.PixelData = labels.tobytes() + b"\0" * (labels.size % 2)
    dataset.save_as(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(mask_of(ingest(tmp_path, tmp_path / "out", roi="node")), MASK)


def test_exact_name_wins_over_pattern() -> None:
    names = ["GTV", "GTV-nodes", "CTV (1)"]
    assert Selection("gtv").choose(names) == ["GTV"]
    assert Selection("GTV?nodes").choose(names) == ["GTV-nodes"]
    assert Selection("ctv (1)").choose(names) == ["CTV (1)"]
    assert Selection("nodes|ctv").choose(names) == ["GTV-nodes", "CTV (1)"]
    assert Selection("(").choose(names) == []
    assert Selection().choose(names) == names


def test_rtstruct_fills_voxel_centres_with_holes(tmp_path: Path) -> None:
    slices = factory.write_series(tmp_path / "ct", HU)
    outer, hole = [box(k, (3.5, 8.5), (2.5, 10.5)) for k in (2, 3, 4)], box(3, (5.5, 6.5), (4.5, 5.5))
    factory.write_rtstruct(tmp_path / "rs.dcm", slices, {"GTV": [*outer, hole]})
    store = ingest(tmp_path, tmp_path / "out")
    np.testing.assert_array_equal(mask_of(store), MASK)
    assert store.series[0].label_source == "rtstruct"


def test_rtstruct_with_several_regions_needs_a_name(tmp_path: Path) -> None:
    slices = factory.write_series(tmp_path / "ct", HU)
    regions = {"GTV": [box(2, (3.5, 8.5), (2.5, 10.5))], "Heart": [box(3, (0.5, 4.5), (0.5, 4.5))]}
    factory.write_rtstruct(tmp_path / "rs.dcm", slices, regions)
    with pytest.raises(InputError, match=r"ambiguous-label .*regions GTV, Heart: choose with --roi"):
        ingest(tmp_path, tmp_path / "out")
    assert mask_of(ingest(tmp_path, tmp_path / "out", roi="heart")).sum() == 16


def test_rtstruct_off_the_slices_is_refused(tmp_path: Path) -> None:
    slices = factory.write_series(tmp_path / "ct", HU)
    beside = box(2, (3, 8), (2, 10))
    beside[:, 2] += 1
    factory.write_rtstruct(tmp_path / "rs.dcm", slices, {"GTV": [beside]})
    with pytest.raises(InputError, match=r"label-geometry .*1\.00 mm off"):
        ingest(tmp_path, tmp_path / "out")


def test_polygon_fill_equals_an_independent_point_in_polygon_test() -> None:
    from matplotlib.path import Path as Polygon

    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[:40, :50]
    centres = np.stack([rows.ravel(), columns.ravel()], axis=1)
    for _ in range(20):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 17))
        radius = rng.uniform(4, 30, 17)
        points = np.stack([20 + radius * np.sin(angles), 25 + radius * np.cos(angles)], axis=1)
        inside = Polygon(points, closed=False).contains_points(centres).reshape(40, 50)
        np.testing.assert_array_equal(fill_polygon(points, (40, 50)), inside)


@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd", "mha"])
def test_label_volume_beside_the_series(tmp_path: Path, suffix: str) -> None:
    factory.write_series(tmp_path / "case" / "ct", HU)
    flipped = MASK[::-1, ::-1].astype(np.uint8) * 22
    origin = (-40, -30 + 0.8 * 19, 100 + 2.5 * 5)
    write_volume(tmp_path / "case" / f"l3.{suffix}", flipped, origin=origin, direction=(1, 0, 0, 0, -1, 0, 0, 0, -1))
    store = ingest(tmp_path, tmp_path / "out", label_value=22)
    np.testing.assert_array_equal(mask_of(store), MASK)
    assert store.series[0].label_source == "volume"


def test_two_cases_with_equal_grids_keep_their_own_labels(tmp_path: Path) -> None:
    for number in range(2):
        factory.write_series(tmp_path / f"p{number}" / "ct", factory.phantom(seed=number), patient=str(number))
        write_volume(tmp_path / f"p{number}" / "mask.nii.gz", (MASK * (number + 1) > 0).astype(np.uint8))
        factory.write_series(
            tmp_path / f"p{number}" / "other", factory.phantom((5, 9, 9), seed=5 + number), patient=str(number)
        )
    store = ingest(tmp_path, tmp_path / "out")
    assert len(store.series) == 4
    assert sorted(row.label_voxels for row in store.series) == [0, 0, MASK.sum(), MASK.sum()]


def test_label_of_an_absent_series_never_goes_to_another_patient(tmp_path: Path) -> None:
    factory.write_series(tmp_path / "p0" / "ct", HU, patient="0")
    write_volume(tmp_path / "p1" / "mask.nii.gz", MASK.astype(np.uint8))
    store = ingest(tmp_path, tmp_path / "out")
    assert store.series[0].flags == ["unlabelled"]
    assert store.manifest["rejected"] == {"label-without-image": 1}
    factory.write_series(tmp_path / "p1" / "ct", factory.phantom((5, 9, 9), seed=5), patient="1")
    (tmp_path / "p1" / "mask.nii.gz").rename(tmp_path / "mask.nii.gz")
    assert ingest(tmp_path, tmp_path / "out").manifest["rejected"] == {"unmatched-volume": 1}
    write_volume(tmp_path / "alone" / "mask.nii.gz", MASK.astype(np.uint8))
    with pytest.raises(InputError, match="label-without-image"):
        ingest(tmp_path / "alone", tmp_path / "out2")


def test_label_in_a_folder_named_for_labels(tmp_path: Path) -> None:
    factory.write_series(tmp_path / "case" / "images", HU)
    write_volume(tmp_path / "case" / "labels" / "mask.nrrd", MASK.astype(np.uint8))
    np.testing.assert_array_equal(mask_of(ingest(tmp_path, tmp_path / "out")), MASK)


@pytest.mark.parametrize(
    ("geometry", "words"),
    [
        ({"origin": (-40, -30, 101)}, "1.000 mm apart"),
        ({"spacing": (0.8, 0.8, 2.6)}, "0.500 mm apart"),
        ({"direction": (1, 0, 0, 0, -1, 0, 0, 0, 1)}, "mm apart"),
    ],
)
def test_label_of_another_geometry_refuses_the_case(tmp_path: Path, geometry: dict, words: str) -> None:
    factory.write_series(tmp_path / "ct", HU)
    write_volume(tmp_path / "label.nii.gz", MASK.astype(np.uint8), **geometry)
    with pytest.raises(InputError, match=f"label-geometry .*{words}"):
        ingest(tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match=f"label-geometry .*{words}"):
        ingest_cases(tmp_path, "image,label\nct,label.nii.gz\n", tmp_path / "out")


def test_float_noise_of_geometry_is_tolerated(tmp_path: Path) -> None:
    factory.write_series(tmp_path / "ct", HU)
    write_volume(
        tmp_path / "label.nii.gz", MASK.astype(np.uint8), origin=(-40.0005, -30, 100), spacing=(0.8001, 0.8, 2.5)
    )
    assert mask_of(ingest(tmp_path, tmp_path / "out")).sum() == MASK.sum()


def test_empty_label_refuses_the_case_unless_allowed(tmp_path: Path) -> None:
    slices = factory.write_series(tmp_path / "ct", HU)
    factory.write_seg(tmp_path / "seg.dcm", slices, {"tumour": np.zeros_like(MASK)})
    with pytest.raises(InputError, match="empty-label"):
        ingest(tmp_path, tmp_path / "out")
    row = ingest(tmp_path, tmp_path / "out", allow_empty_labels=True).series[0]
    assert (row.label_source, row.label_voxels, row.label_first) == ("seg", 0, None)
    assert "unlabelled" not in row.flags


def test_label_without_image_and_two_labels(tmp_path: Path) -> None:
    slices = factory.write_series(tmp_path / "ct", HU)
    other = factory.write_series(tmp_path / "elsewhere", HU)
    factory.write_seg(tmp_path / "lost.dcm", other, {"tumour": MASK})
    for path in (tmp_path / "elsewhere").iterdir():
        path.unlink()
    store = ingest(tmp_path, tmp_path / "out")
    assert store.manifest["rejected"] == {"label-without-image": 1}
    assert store.series[0].flags == ["unlabelled"]
    factory.write_seg(tmp_path / "one.dcm", slices, {"tumour": MASK})
    factory.write_seg(tmp_path / "two.dcm", slices, {"node": MASK})
    with pytest.raises(InputError, match="ambiguous-label"):
        ingest(tmp_path, tmp_path / "out2")
    assert mask_of(ingest(tmp_path, tmp_path / "out3", roi="node")).sum() == MASK.sum()


def test_seg_beyond_or_beside_the_series_is_refused(tmp_path: Path) -> None:
    slices = factory.write_series(tmp_path / "ct", HU)
    first = slices[2].ImagePositionPatient
    slices[2].ImagePositionPatient = [first[0] + 0.3, first[1], first[2]]
    factory.write_seg(tmp_path / "seg.dcm", slices, {"tumour": MASK})
    with pytest.raises(InputError, match=r"label-geometry .*0\.300 mm beside"):
        ingest(tmp_path, tmp_path / "out")
    slices[2].ImagePositionPatient = [first[0], first[1], first[2] + 250]
    factory.write_seg(tmp_path / "seg.dcm", slices, {"tumour": MASK})
    with pytest.raises(InputError, match=r"label-geometry .*beyond"):
        ingest(tmp_path, tmp_path / "out")


def test_corrupt_label_refuses_the_case(tmp_path: Path) -> None:
    slices = factory.write_series(tmp_path / "ct", HU)
    factory.write_seg(tmp_path / "seg.dcm", slices, {"tumour": MASK})
    data = (tmp_path / "seg.dcm").read_bytes()
    (tmp_path / "seg.dcm").write_bytes(data[:-50])
    with pytest.raises(InputError, match=r"unreadable .*segmentation object"):
        ingest(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "nrrd", "mha"])
def test_corrupt_volume_is_refused_in_silence(tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"Roentgen.{suffix}"
    write_volume(path, HU)
    data = path.read_bytes()
    for broken in (data[: len(data) // 2], data[:60], b"x" * 500):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=r"no usable CT series: (unreadable|not-dicom)"):
            ingest_cases(tmp_path, f"image\n{path.name}\n", tmp_path / "out")
    assert "Roentgen" not in "".join(capfd.readouterr())
    os.write(2, b"still open")
    assert capfd.readouterr().err == "still open"


def test_cases_file_with_volumes_folders_and_splits(tmp_path: Path) -> None:
    slices = factory.write_series(tmp_path / "dicom" / "a", HU)
    (tmp_path / "labels").mkdir()
    factory.write_seg(tmp_path / "labels" / "seg.dcm", slices, {"tumour": MASK})
    write_volume(tmp_path / "v" / "ct.nrrd", HU.astype(np.float32) + np.float32(0.25))
    write_volume(tmp_path / "v" / "mask.mha", MASK.astype(np.float64) * 29)
    text = "image,label,label_value,patient,split\ndicom/a,labels,,,train\nv/ct.nrrd,v/mask.mha,29,someone,test\n"
    store = ingest_cases(tmp_path, text, tmp_path / "out")
    rows = {row.source: row for row in store.series}
    assert {name: row.split for name, row in rows.items()} == {"dicom": "train", "nrrd": "test"}
    assert rows["nrrd"].flags == ["rounded"]
    for row in store.series:
        hu, mask = store.volume(row)
        np.testing.assert_array_equal(hu, HU)
        np.testing.assert_array_equal(mask, MASK)
    assert "someone" not in (tmp_path / "out" / "manifest.json").read_text()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("picture,label\nct,\n", "line 1: expected the columns"),
        ("image,note\nct,\n", "line 1: expected the columns"),
        ("image,label\nct,absent.nii\n", "line 2: the label absent.nii does not exist"),
        ("image,label\nct,\nnowhere,\n", "line 3: the image nowhere does not exist"),
        ("image,label_value\nct,L3\n", "line 2: label_value 'L3'"),
        ("image,split\nct,training\n", "line 2: split 'training'"),
        ("image\n", "has no case"),
        ("image\nct,3\n", "line 2: more values"),
        ("image,patient,split\nct,a,train\nct,a,test\n", "line 3: split 'test' differs from 'train'"),
    ],
)
def test_faults_of_a_cases_file_name_the_line(tmp_path: Path, text: str, words: str) -> None:
    factory.write_series(tmp_path / "ct", HU)
    with pytest.raises(InputError, match=words):
        ingest_cases(tmp_path, text, tmp_path / "out")


def test_image_folder_with_two_series_and_repeated_rows(tmp_path: Path) -> None:
    factory.write_series(tmp_path / "ct" / "a", HU)
    factory.write_series(tmp_path / "ct" / "b", factory.phantom(seed=4), series=generate_uid())
    store = ingest_cases(tmp_path, "image\nct\nct/a\nct/a\n", tmp_path / "out")
    assert len(store.series) == 1
    assert store.manifest["rejected"] == {"ambiguous-image": 1, "duplicate-series": 6}


def test_label_with_several_values_needs_one(tmp_path: Path) -> None:
    factory.write_series(tmp_path / "ct", HU)
    values = MASK.astype(np.uint8)
    values[0, 0, 0] = 7
    write_volume(tmp_path / "label.nii.gz", values)
    with pytest.raises(InputError, match="the values 1, 7: choose one with --label-value"):
        ingest(tmp_path, tmp_path / "out")
    assert mask_of(ingest(tmp_path, tmp_path / "out", label_value=7)).sum() == 1
