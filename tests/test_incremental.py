"""update_dataset: what is read, taken over and kept; versions, concurrent updates, folders and S3."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dicom_factory as factory
import numpy as np
import pyarrow.parquet as pq
import pytest
import SimpleITK as sitk
from s3_server import ACCESS, BUCKET, SECRET, client

from hounsfield.components.dicom_ingest.config import Config as Ingest
from hounsfield.components.dicom_ingest.run import run as ingest
from hounsfield.components.update_dataset.config import Config
from hounsfield.components.update_dataset.run import run
from hounsfield.data.dataset import Dataset
from hounsfield.data.series_store import SeriesStore, SeriesStoreWriter
from hounsfield.dicom import pixels
from hounsfield.errors import ArtifactError, InputError


@pytest.fixture(autouse=True)
def _pseudonym_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUNSFIELD_PSEUDONYM_KEY", "a key of the tests")


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of a real S3 server, which the process uses as well."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    return client(s3_endpoint)


@pytest.fixture(params=["folder", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where a dataset can grow: a folder, and a prefix of a real S3 server."""
    if request.param == "folder":
        yield str(tmp_path / "dataset")
        return
    request.getfixturevalue("s3")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    yield f"s3://{BUCKET}/{tmp_path.name}/dataset"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The slices whose pixels are read, as they are."""
    paths: list[Path] = []
    original = pixels.read_slice

    def counting(header: Any, out: Any) -> Any:
        paths.append(header.file.path)
        return original(header, out)

    monkeypatch.setattr(pixels, "read_slice", counting)
    return paths


def patient(folder: Path, number: int, label: int = 0) -> None:
    """A series with a segmentation of the voxels above `label` HU."""
    hu = factory.phantom(seed=number)
    uids = {"series": f"1.2.3.{number}", "frame_of_reference": f"1.2.{number}"}
    slices = factory.write_series(folder / f"p{number}" / "ct", hu, patient=f"MRN-00471-{number}", **uids)
    factory.write_seg(folder / f"p{number}" / "seg.dcm", slices, {"tumour": hu > label})


def checkout(location: str, version: str, target: Path) -> SeriesStore:
    """The version with its voxels."""
    target.mkdir()
    writer, dataset = SeriesStoreWriter(target), Dataset(location)
    dataset.take_volumes(int(version), writer)
    for path in dataset.tables(int(version)).directory.iterdir():
        shutil.copyfile(path, target / path.name)
    return SeriesStore(target)


def fresh(folder: Path, out: Path, **config: Any) -> SeriesStore:
    ingest(Ingest(**config), [str(folder)], "", out)
    return SeriesStore(out)


def assert_equal(store: SeriesStore, other: SeriesStore) -> None:
    """Manifest, tables and voxels byte for byte."""
    assert store.manifest == other.manifest
    names = sorted(path.relative_to(other.directory) for path in other.directory.rglob("*") if path.is_file())
    for name in names:
        if name.name != "index.html":
            assert (store.directory / name).read_bytes() == (other.directory / name).read_bytes(), name


def test_new_relabelled_and_absent_series(
    location: str, tmp_path: Path, read: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "in"
    for number in (1, 2):
        patient(data, number)
    assert run(Config(), [str(data)], "", location) == "1"
    assert_equal(checkout(location, "1", tmp_path / "first"), fresh(data, tmp_path / "fresh-1"))

    read.clear()
    capsys.readouterr()
    assert run(Config(), [str(data)], "", location) == "1"
    assert "nothing changed: the input files" in capsys.readouterr().out
    os.utime(data / "p1" / "seg.dcm", (1, 1))
    assert run(Config(), [str(data)], "", location) == "1"
    said = capsys.readouterr().out
    assert "2 known and not read" in said
    assert "nothing changed: dataset" in said
    assert not read

    patient(data, 3)
    assert run(Config(), [str(data)], "", location) == "2"
    assert {path.parent.parent.name for path in read} == {"p3"}
    assert "1 series new: dataset" in capsys.readouterr().out
    assert_equal(checkout(location, "2", tmp_path / "second"), fresh(data, tmp_path / "fresh-2"))

    read.clear()
    shutil.rmtree(data / "p2")
    seg = data / "p1" / "seg.dcm"
    relabelled = tmp_path / "relabelled"
    hu = factory.phantom(seed=1)
    slices = factory.write_series(relabelled / "p1" / "ct", hu, series="1.2.3.1", frame_of_reference="1.2.1")
    factory.write_seg(seg, slices, {"tumour": hu > 500})
    assert run(Config(), [str(data)], "", location) == "3"
    said = capsys.readouterr().out
    assert "1 series relabelled: dataset" in said
    assert "1 that the input does not have stay" in said
    assert {path.parent.parent.name for path in read} == {"p1"}
    store = checkout(location, "3", tmp_path / "third")
    patient(data, 2)
    row = {item.patient: item for item in fresh(data, tmp_path / "fresh-3").series}
    assert {item.patient for item in store.series} == row.keys()
    changed = [item for item in store.series if item != Dataset(location).tables(2).series[store.series.index(item)]]
    assert [item.label_voxels for item in changed] == [int((hu > 500).sum())]

    shutil.rmtree(data / "p2")
    assert run(Config(keep_absent=False), [str(data)], "", location) == "4"
    assert "1 series taken out" in capsys.readouterr().out
    assert_equal(checkout(location, "4", tmp_path / "fourth"), fresh(data, tmp_path / "fresh-4"))
    assert Dataset(location).tables(2).manifest["series"] == 3


def test_only_the_new_data_is_given(location: str, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        patient(tmp_path / "all", number)
    for number in (1, 2, 3):
        version = run(Config(), [str(tmp_path / "all" / f"p{number}")], "", location)
    assert version == "3"
    whole = fresh(tmp_path / "all", tmp_path / "fresh")
    store = checkout(location, version, tmp_path / "store")
    assert store.dataset_hash == whole.dataset_hash
    assert store.series == whole.series
    for row in whole.series:
        for mine, theirs in zip(store.volume(row), whole.volume(row), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_series_that_is_no_longer_usable_is_taken_out(tmp_path: Path) -> None:
    for number in (1, 2):
        patient(tmp_path / "in", number)
    dataset = str(tmp_path / "dataset")
    run(Config(), [str(tmp_path / "in")], "", dataset)
    next((tmp_path / "in" / "p1" / "ct").iterdir()).write_bytes(b"damaged")
    slices = sorted((tmp_path / "in" / "p2" / "ct").iterdir())
    for path in slices[:-2]:
        path.unlink()
    patient(tmp_path / "in", 3)
    assert run(Config(), [str(tmp_path / "in")], "", dataset) == "2"
    assert Dataset(dataset).tables(2).series == fresh(tmp_path / "in", tmp_path / "fresh").series


def test_case_whose_label_is_no_longer_usable_is_taken_out(tmp_path: Path) -> None:
    patient(tmp_path / "in", 1)
    patient(tmp_path / "in", 2)
    cases, dataset = tmp_path / "cases.csv", str(tmp_path / "dataset")
    cases.write_text("image,label\n" + "".join(f"in/p{number}/ct,in/p{number}/seg.dcm\n" for number in (1, 2)))
    assert run(Config(), [], str(cases), dataset) == "1"
    (tmp_path / "in" / "p2" / "seg.dcm").write_text("overwritten")
    assert run(Config(), [], str(cases), dataset) == "2"
    ingest(Ingest(), [], str(cases), tmp_path / "fresh")
    assert Dataset(dataset).tables(2).series == SeriesStore(tmp_path / "fresh").series
    assert len(Dataset(dataset).tables(2).series) == 1


def test_series_that_grew_is_read_again(tmp_path: Path, read: list[Path]) -> None:
    patient(tmp_path / "in", 1)
    dataset = str(tmp_path / "dataset")
    last = max((tmp_path / "in" / "p1" / "ct").iterdir(), key=lambda path: float(position(path)))
    kept = last.read_bytes()
    last.unlink()
    (tmp_path / "in" / "p1" / "seg.dcm").unlink()
    run(Config(), [str(tmp_path / "in")], "", dataset)
    last.write_bytes(kept)
    read.clear()
    assert run(Config(), [str(tmp_path / "in")], "", dataset) == "2"
    assert len(read) == 6
    assert Dataset(dataset).tables(2).series == fresh(tmp_path / "in", tmp_path / "fresh").series


def position(path: Path) -> float:
    import pydicom

    return float(pydicom.dcmread(path, stop_before_pixels=True).ImagePositionPatient[2])


def test_volume_files_split_and_patient_of_a_cases_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        image = sitk.GetImageFromArray(factory.phantom(seed=len(name) + ord(name)))
        sitk.WriteImage(image, str(tmp_path / f"{name}.nii.gz"))
        label = sitk.GetImageFromArray((sitk.GetArrayFromImage(image) > 0).astype(np.uint8))
        sitk.WriteImage(label, str(tmp_path / f"{name}-label.nii.gz"))
    cases, dataset = tmp_path / "cases.csv", str(tmp_path / "dataset")

    def update(*lines: str) -> str:
        cases.write_text("\n".join(["image,label,patient,split", *lines]) + "\n")
        return run(Config(), [], str(cases), dataset)

    a, b = (f"{name}.nii.gz,{name}-label.nii.gz,{name.upper()}" for name in "ab")
    assert update(f"{a},train") == "1"
    assert update(f"{a},train", f"{b},test") == "2"
    assert update(f"{a},train", f"{b},test") == "2"
    assert update(f"{a},train", f"{b},val") == "3"
    ingest(Ingest(), [], str(cases), tmp_path / "fresh")
    assert Dataset(dataset).tables(3).series == SeriesStore(tmp_path / "fresh").series
    rewritten = sitk.GetImageFromArray(factory.phantom(seed=99))
    sitk.WriteImage(rewritten, str(tmp_path / "a.nii.gz"))
    assert update(f"{a},train", f"{b},val") == "4"


def test_two_updates_at_once_lose_nothing(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2, 3):
        patient(tmp_path / "all", number)
    folders = {number: str(tmp_path / "all" / f"p{number}") for number in (1, 2, 3)}
    run(Config(), [folders[1]], "", location)
    commit = Dataset.commit
    interrupted = []

    def late(self: Dataset, version: int, tables: Path, made_of: str) -> bool:
        if not interrupted:
            interrupted.append(version)
            run(Config(), [folders[3]], "", location)
        return commit(self, version, tables, made_of)

    monkeypatch.setattr(Dataset, "commit", late)
    assert run(Config(), [folders[2]], "", location) == "3"
    assert "another update came first" in capsys.readouterr().out
    whole = fresh(tmp_path / "all", tmp_path / "fresh")
    assert Dataset(location).tables(3).series == whole.series


def test_killed_update_leaves_no_version_and_is_tidied(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient(tmp_path / "in", 1)
    run(Config(), [str(tmp_path / "in")], "", location)
    patient(tmp_path / "in", 2)
    dataset = Dataset(location)

    def killed(*_: Any) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(dataset._place), "create", killed)
        with pytest.raises(KeyboardInterrupt):
            run(Config(), [str(tmp_path / "in")], "", location)
    assert Dataset(location).latest() == 1
    assert len({name.split("/")[1] for name in dataset._place.names("versions")}) == 3
    assert run(Config(), [str(tmp_path / "in")], "", location) == "2"
    assert len({name.split("/")[1] for name in dataset._place.names("versions")}) == 4
    assert_equal(checkout(location, "2", tmp_path / "store"), fresh(tmp_path / "in", tmp_path / "fresh"))


def test_refusals_name_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patient(tmp_path / "in", 1)
    data, dataset = [str(tmp_path / "in")], str(tmp_path / "dataset")
    run(Config(), data, "", dataset)
    patient(tmp_path / "other", 2)
    with pytest.raises(InputError, match=r"was ingested with .*: use its settings"):
        run(Config(roi="tumour"), [str(tmp_path / "other")], "", dataset)
    assert run(Config(roi="tumour"), data, "", dataset) == "1"
    with pytest.raises(ArtifactError, match="has no version 7: its latest is 1"):
        Dataset(dataset).tables(7)
    with pytest.raises(InputError, match="neither empty nor a dataset"):
        run(Config(), data, "", str(tmp_path))
    with pytest.raises(InputError, match="give --dataset"):
        run(Config(), data, "", "")
    for path in Path(dataset, "volumes").iterdir():
        path.unlink()
    with pytest.raises(ArtifactError, match="has lost volumes/"):
        checkout(dataset, "1", tmp_path / "out")
    monkeypatch.setenv("HOUNSFIELD_PSEUDONYM_KEY", "another key")
    with pytest.raises(InputError, match="another pseudonym key"):
        run(Config(), data, "", dataset)


def test_name_lies_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUNSFIELD_DATASETS", str(tmp_path / "datasets"))
    assert Dataset("lung").location == str(tmp_path / "datasets" / "lung")
    assert Dataset(str(tmp_path / "own")).location == str(tmp_path / "own")
    monkeypatch.delenv("HOUNSFIELD_DATASETS")
    assert Dataset("lung").location == "lung"


def test_nothing_identifies_the_patient(tmp_path: Path) -> None:
    patient(tmp_path / "in", 1)
    run(Config(), [str(tmp_path / "in")], "", str(tmp_path / "dataset"))
    for path in (tmp_path / "dataset").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [
                text for text in ("MRN-00471-1", factory.PATIENT_NAME, "1.2.3.1") if text.encode() in content
            ], path


def test_s3_dataset_is_read_without_its_volumes(s3: Any, tmp_path: Path) -> None:
    patient(tmp_path / "in", 1)
    location = f"s3://{BUCKET}/{tmp_path.name}/light"
    run(Config(), [str(tmp_path / "in")], "", location)
    prefix = f"{tmp_path.name}/light/volumes/"
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]]
    assert len(keys) == 1
    s3.delete_object(Bucket=BUCKET, Key=keys[0])
    assert run(Config(), [str(tmp_path / "in")], "", location) == "1"
    assert pq.read_table(Dataset(location).tables(1).directory / "series.parquet").num_rows == 1
    with pytest.raises(ArtifactError, match="has lost volumes/"):
        checkout(location, "1", tmp_path / "out")
