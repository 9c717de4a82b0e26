"""Series, geometry faults, refusals and outputs of dicom-ingest on small synthetic series."""

import subprocess
import sys
from pathlib import Path

import dicom_factory as factory
import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, generate_uid

from hounsfield.components.dicom_ingest.run import Config, run
from hounsfield.data.series_store import SeriesStore
from hounsfield.dicom.reasons import MEANING, Reason
from hounsfield.errors import InputError


@pytest.fixture(autouse=True)
def _pseudonym_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUNSFIELD_PSEUDONYM_KEY", "a key of the tests")


def ingest(data: Path, out: Path, **config: object) -> SeriesStore:
    run(Config.model_validate(config), [str(data)], None, out)
    return SeriesStore(out)


def reasons(store: SeriesStore) -> dict[str, int]:
    return dict(store.manifest["rejected"])


def volume(store: SeriesStore) -> np.ndarray:
    assert len(store.series) == 1
    return store.volume(store.series[0])[0]


def test_slices_are_sorted_by_position_not_by_number_or_name(tmp_path: Path) -> None:
    hu = factory.phantom()
    factory.write_series(tmp_path / "in" / "deep" / "er", hu)
    store = ingest(tmp_path / "in", tmp_path / "out")
    row = store.series[0]
    np.testing.assert_array_equal(volume(store), hu)
    assert row.spacing == (2.5, 0.8, 0.8)
    assert row.origin == [-40.0, -30.0, 100.0]
    assert row.direction == [0, 0, 1, 0, 1, 0, 1, 0, 0]
    assert row.flags == ["unlabelled"]
    assert [item.position_mm for item in store.slices()] == [100 + 2.5 * k for k in range(6)]


@pytest.mark.parametrize(
    ("orientation", "to_store"),
    [
        ((1, 0, 0, 0, 1, 0), lambda hu: hu),
        ((-1, 0, 0, 0, 1, 0), lambda hu: hu[::-1, :, ::-1]),
        ((1, 0, 0, 0, -1, 0), lambda hu: hu[::-1, ::-1, :]),
        ((0, 1, 0, 0, 0, -1), lambda hu: hu.transpose(1, 2, 0)[::-1, :, ::-1]),
        ((1, 0, 0, 0, 0, -1), lambda hu: hu.transpose(1, 0, 2)[::-1]),
    ],
    ids=["axial", "prone", "upside-down", "sagittal", "coronal"],
)
def test_every_orientation_comes_to_one_axis_order(tmp_path: Path, orientation: tuple, to_store: object) -> None:
    import SimpleITK as sitk

    hu = factory.phantom((5, 9, 7))
    factory.write_series(tmp_path / "in", hu, orientation=orientation, spacing=(2.0, 0.7, 0.9))
    store = ingest(tmp_path / "in", tmp_path / "out")
    np.testing.assert_array_equal(volume(store), to_store(hu))

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "in")))
    reference = sitk.DICOMOrient(reader.Execute(), "LPS")
    np.testing.assert_array_equal(volume(store), sitk.GetArrayFromImage(reference))
    np.testing.assert_allclose(store.series[0].origin, reference.GetOrigin(), atol=1e-5)
    np.testing.assert_allclose(store.series[0].spacing[::-1], reference.GetSpacing(), atol=1e-5)


def test_oblique_series_keeps_its_geometry(tmp_path: Path) -> None:
    angle = np.radians(20)
    orientation = (1, 0, 0, 0, np.cos(angle), np.sin(angle))
    hu = factory.phantom()
    factory.write_series(tmp_path / "in", hu, orientation=orientation)
    row = ingest(tmp_path / "in", tmp_path / "out").series[0]
    assert "oblique" in row.flags
    np.testing.assert_allclose(row.direction[:3], np.cross(orientation[:3], orientation[3:]), atol=1e-6)


def test_gantry_tilt_is_refused(tmp_path: Path) -> None:
    angle = np.radians(20)
    factory.write_series(
        tmp_path / "in", factory.phantom(), orientation=(1, 0, 0, 0, np.cos(angle), np.sin(angle)), step=(0, 0, 3)
    )
    with pytest.raises(InputError, match=r"gantry-tilt .*20\.0 degrees"):
        ingest(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _delete(folder: Path, k: int) -> None:
    (folder / f"{(k * 7 + 3) % 101:03d}").unlink()


def _shift(dataset: pydicom.FileDataset, k: int) -> None:
    if k == 3:
        dataset.ImagePositionPatient = [-40, -30, dataset.ImagePositionPatient[2] + 0.6]


def _widen(dataset: pydicom.FileDataset, k: int) -> None:
    if k == 2:
        dataset.Columns, dataset.Rows = dataset.Rows, dataset.Columns


def _turn(dataset: pydicom.FileDataset, k: int) -> None:
    if k == 2:
        dataset.ImageOrientationPatient = [0, 1, 0, 1, 0, 0]


def _rename(dataset: pydicom.FileDataset, k: int) -> None:
    if k == 2:
        dataset.PatientID = "someone else"


def _without(keyword: str) -> factory.Change:
    def change(dataset: pydicom.FileDataset, k: int) -> None:
        if k == 4:
            delattr(dataset, keyword)

    return change


def _with(keyword: str, value: object) -> factory.Change:
    return lambda dataset, k: setattr(dataset, keyword, value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_shift, Reason.IRREGULAR_SPACING),
        (_widen, Reason.INCONSISTENT_SIZE),
        (_turn, Reason.INCONSISTENT_ORIENTATION),
        (_rename, Reason.INCONSISTENT_PATIENT),
        (_without("ImagePositionPatient"), Reason.NO_GEOMETRY),
        (_without("PixelData"), Reason.NO_PIXELS),
        (_without("RescaleSlope"), Reason.NOT_HU),
        (_with("RescaleType", "Z_EFF"), Reason.NOT_HU),
        (_with("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]), Reason.LOCALIZER),
        (_with("SOPClassUID", "1.2.840.10008.5.1.4.1.1.4"), Reason.NOT_CT),
        (_with("SamplesPerPixel", 3), Reason.UNSUPPORTED_PIXELS),
        (_with("HighBit", 200), Reason.UNSUPPORTED_PIXELS),
        (_with("PixelSpacing", [0.8, 0]), Reason.NO_GEOMETRY),
    ],
)
def test_faulty_series_is_refused_with_its_reason(tmp_path: Path, change: factory.Change, reason: Reason) -> None:
    factory.write_series(tmp_path / "in" / "good", factory.phantom(seed=1))
    factory.write_series(tmp_path / "in" / "bad", factory.phantom(seed=2), change=change)
    store = ingest(tmp_path / "in", tmp_path / "out")
    assert reasons(store) == {reason: 6}
    np.testing.assert_array_equal(volume(store), factory.phantom(seed=1))


def test_missing_slice_is_a_gap(tmp_path: Path) -> None:
    factory.write_series(tmp_path / "in", factory.phantom())
    _delete(tmp_path / "in", 2)
    with pytest.raises(InputError, match="missing-slices"):
        ingest(tmp_path / "in", tmp_path / "out")


def test_small_jitter_of_positions_is_tolerated_and_flagged(tmp_path: Path) -> None:
    def jitter(dataset: pydicom.FileDataset, k: int) -> None:
        dataset.ImagePositionPatient = [-40, -30, 100 + 2.5 * k + (0.01 if k % 2 else 0.0)]

    factory.write_series(tmp_path / "in", factory.phantom(), change=jitter)
    assert ingest(tmp_path / "in", tmp_path / "out").series[0].flags == ["uneven-spacing", "unlabelled"]


def test_identical_copy_is_left_out_and_different_slice_at_one_position_is_refused(tmp_path: Path) -> None:
    hu = factory.phantom()
    factory.write_series(tmp_path / "in", hu, series="1.2.3")
    (tmp_path / "in" / "copy").write_bytes((tmp_path / "in" / "003").read_bytes())
    store = ingest(tmp_path / "in", tmp_path / "out")
    np.testing.assert_array_equal(volume(store), hu)
    assert reasons(store) == {"duplicate-slice": 1}

    factory.write_series(tmp_path / "in" / "other", factory.phantom(seed=9)[:1], series="1.2.3")
    with pytest.raises(InputError, match="conflicting-slices"):
        ingest(tmp_path / "in", tmp_path / "out2")


def test_mixed_folder_is_separated_by_series(tmp_path: Path) -> None:
    volumes = [factory.phantom(seed=seed) for seed in range(3)]
    for seed, hu in enumerate(volumes):
        factory.write_series(tmp_path / "in" / str(seed), hu, patient=f"p{seed // 2}")
    for path in list((tmp_path / "in").glob("*/*")):
        path.rename(tmp_path / "in" / f"{path.parent.name}-{path.name}.ima")
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    (tmp_path / "in" / "empty").write_bytes(b"")
    store = ingest(tmp_path / "in", tmp_path / "out")
    assert len(store.series) == 3
    assert len({row.patient for row in store.series}) == 2
    assert reasons(store) == {"not-dicom": 2}
    found = sorted(store.volume(row)[0].tobytes() for row in store.series)
    assert found == sorted(hu.tobytes() for hu in volumes)


def test_truncated_slice_refuses_the_series(tmp_path: Path) -> None:
    factory.write_series(tmp_path / "in", factory.phantom())
    path = tmp_path / "in" / "003"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"unreadable \(6 files: a slice is truncated"):
        ingest(tmp_path / "in", tmp_path / "out")


def test_random_bytes_never_crash(tmp_path: Path) -> None:
    factory.write_series(tmp_path / "good", factory.phantom())
    original = (tmp_path / "good" / "003").read_bytes()
    rng = np.random.default_rng(0)
    for number in range(60):
        data = bytearray(original)
        for at in rng.integers(132, len(data) - 700, 8):
            data[at] = rng.integers(256)
        (tmp_path / "good" / f"fuzz{number}").write_bytes(data[: rng.integers(100, len(data) + 1)])
    factory.write_series(tmp_path / "good" / "other", factory.phantom(seed=3))
    store = ingest(tmp_path / "good", tmp_path / "out")
    assert sum(row.slices for row in store.series) + sum(reasons(store).values()) == 72
    assert any(np.array_equal(store.volume(row)[0], factory.phantom(seed=3)) for row in store.series)


def _save_as(syntax: str) -> object:
    def save(dataset: pydicom.FileDataset, path: Path) -> None:
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            dataset["PixelData"].VR = "OW"
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        encoding = {"implicit_vr": syntax == ImplicitVRLittleEndian, "little_endian": syntax != ExplicitVRBigEndian}
        pydicom.dcmwrite(path, dataset, force_encoding=True, **encoding)

    return save


def _save_bare(dataset: pydicom.FileDataset, path: Path) -> None:
    meta, dataset.file_meta, dataset.preamble = dataset.file_meta, pydicom.dataset.FileMetaDataset(), None
    dataset.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
    dataset.file_meta = meta


@pytest.mark.parametrize(
    "save",
    [_save_as(ImplicitVRLittleEndian), _save_as(ExplicitVRBigEndian), _save_bare],
    ids=["implicit", "big-endian", "no preamble"],
)
def test_encodings_give_the_same_volume(tmp_path: Path, save: object) -> None:
    hu = factory.phantom()
    factory.write_series(tmp_path / "in", hu, save=save)
    np.testing.assert_array_equal(volume(ingest(tmp_path / "in", tmp_path / "out")), hu)


@pytest.mark.parametrize(
    ("compress", "name"), [("RLELossless", "rle"), ("JPEG2000Lossless", "j2k"), ("JPEGLSLossless", "jls")]
)
def test_compressed_slices_are_exact(tmp_path: Path, compress: str, name: str) -> None:
    hu = factory.phantom((4, 33, 31))

    def save(dataset: pydicom.FileDataset, path: Path) -> None:
        import imagecodecs
        from pydicom.encaps import encapsulate

        plane = np.frombuffer(dataset.PixelData, "<u2").reshape(33, 31)
        if name == "rle":
            dataset.compress(pydicom.uid.RLELossless, plane)
        else:
            coded = (
                imagecodecs.jpegls_encode(plane)
                if name == "jls"
                else imagecodecs.jpeg2k_encode(plane, codecformat="j2k", level=0)
            )
            dataset.PixelData = encapsulate([coded])
            dataset.file_meta.TransferSyntaxUID = getattr(pydicom.uid, compress)
            dataset["PixelData"].is_undefined_length = True
        dataset.save_as(path, enforce_file_format=True)

    factory.write_series(tmp_path / "in", hu, save=save)
    np.testing.assert_array_equal(volume(ingest(tmp_path / "in", tmp_path / "out")), hu)
    path = tmp_path / "in" / "003"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(InputError, match="unreadable"):
        ingest(tmp_path / "in", tmp_path / "out")


def test_stored_bits_signs_and_rescale(tmp_path: Path) -> None:
    hu = factory.phantom((4, 8, 8))

    def change(dataset: pydicom.FileDataset, k: int) -> None:
        plane = hu[k].astype(np.int32)
        if k == 0:  # signed 16 bits, no intercept
            dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation, dataset.RescaleIntercept = 16, 15, 1, "0"
            dataset.PixelData = plane.astype("<i2").tobytes()
        elif k == 1:  # 12 bits with overlay bits above them
            dataset.PixelData = ((plane + 1024) | 0xA000).astype("<u2").tobytes()
        elif k == 2:  # unsigned 16 bits above 32767
            dataset.BitsStored, dataset.HighBit, dataset.RescaleIntercept = 16, 15, "-40000"
            dataset.PixelData = (plane + 40000).astype("<u2").tobytes()
        else:  # signed 12 bits without sign extension, slope 2
            dataset.PixelRepresentation, dataset.RescaleSlope, dataset.RescaleIntercept = 1, "2", "0"
            hu[k] = plane // 2 * 2
            dataset.PixelData = ((plane // 2) & 0x0FFF).astype("<u2").tobytes()

    factory.write_series(tmp_path / "in", hu.copy(), change=change)
    np.testing.assert_array_equal(volume(ingest(tmp_path / "in", tmp_path / "out")), hu)


def test_padding_clipping_and_rounding_are_flagged(tmp_path: Path) -> None:
    hu = factory.phantom((3, 8, 8))

    def change(dataset: pydicom.FileDataset, k: int) -> None:
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 15, 1
        plane = np.full((8, 8), [-2000, 100, 30000, 0, 1, 2, 3, 4][k], "<i2")
        plane[0, 0] = -2000
        dataset.PixelPaddingValue = -2000
        dataset.RescaleSlope = ["1", "1.5", "2"][k]
        dataset.PixelData = plane.tobytes()

    factory.write_series(tmp_path / "in", hu, change=change)
    store = ingest(tmp_path / "in", tmp_path / "out")
    assert store.series[0].flags == ["clipped", "padding", "rounded", "unlabelled"]
    assert volume(store)[:, 1, 1].tolist() == [-1024, -874, 32767]
    assert volume(store)[:, 0, 0].tolist() == [-1024, -1024, -1024]


def test_same_input_gives_the_same_bytes_wherever_it_lies_and_with_any_workers(tmp_path: Path) -> None:
    uid = generate_uid()
    for place in ("one", "two"):
        hu = factory.phantom()
        slices = factory.write_series(tmp_path / place / "in", hu, series=uid)
        (tmp_path / place / "in" / "text").write_text("x")
        factory.write_seg(tmp_path / place / "in" / "seg", slices, {"tumour": hu > 0})
    for path in (tmp_path / "one" / "in").iterdir():
        (tmp_path / "two" / "in" / path.name).write_bytes(path.read_bytes())
    ingest(tmp_path / "one", tmp_path / "out1", workers=1)
    ingest(tmp_path / "two", tmp_path / "out2", workers=4)
    first = {path.relative_to(tmp_path / "out1"): path.read_bytes() for path in (tmp_path / "out1").rglob("*.*")}
    second = {path.relative_to(tmp_path / "out2"): path.read_bytes() for path in (tmp_path / "out2").rglob("*.*")}
    assert first == second
    assert len(first) == 6


def test_dataset_hash_follows_pixels_and_labels(tmp_path: Path) -> None:
    hu = factory.phantom()
    slices = factory.write_series(tmp_path / "in", hu, series="1.2.3")
    hashes = {ingest(tmp_path / "in", tmp_path / "a").dataset_hash}
    factory.write_seg(tmp_path / "in" / "seg", slices, {"tumour": hu > 0})
    hashes.add(ingest(tmp_path / "in", tmp_path / "b").dataset_hash)
    factory.write_seg(tmp_path / "in" / "seg", slices, {"tumour": hu > 10})
    hashes.add(ingest(tmp_path / "in", tmp_path / "c").dataset_hash)
    slices[0].PixelData = b"\1\0" * 320
    slices[0].save_as(tmp_path / "in" / "003")
    hashes.add(ingest(tmp_path / "in", tmp_path / "d").dataset_hash)
    assert len(hashes) == 4


def test_command_line_names_faults_in_one_line(tmp_path: Path) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        module = [sys.executable, "-m", "hounsfield.components.dicom_ingest"]
        return subprocess.run([*module, *arguments], capture_output=True, text=True, check=False)

    factory.write_series(tmp_path / "a, b [1]", factory.phantom())
    good = command("--data", str(tmp_path / "a, b [1]"), "--out", str(tmp_path / "out"))
    assert good.returncode == 0, good.stderr
    assert "1 series of 1 patients (0 labelled, 6 slices), 0 files not used; store:" in good.stdout
    for arguments, words in (
        (("--data", str(tmp_path / "absent"), "--out", str(tmp_path / "x")), "does not exist"),
        (("--out", str(tmp_path / "x")), "either --data"),
        (("--data", str(tmp_path / "a, b [1]"), "--out", "/proc/x"), "cannot write output"),
    ):
        bad = command(*arguments)
        assert bad.returncode == 2
        assert bad.stderr.startswith("error: ")
        assert words in bad.stderr
        assert len(bad.stderr.splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_every_reason_is_explained() -> None:
    readme = (Path(__file__).parents[1] / "components" / "dicom_ingest" / "README.md").read_text()
    assert set(MEANING) == set(Reason)
    for reason in Reason:
        assert f"| `{reason}` | {MEANING[reason]} |" in readme
