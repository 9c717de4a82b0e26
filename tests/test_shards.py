"""Ingest in shards: every series in one of them, bounded, and merged stores equal to the undivided one."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import dicom_factory as factory
import numpy as np
import pytest
import SimpleITK as sitk
from s3_server import ACCESS, BUCKET, SECRET, client

from hounsfield.components.dicom_ingest.config import Config as Ingest
from hounsfield.components.dicom_ingest.run import run as ingest
from hounsfield.components.merge_stores.config import Config as Merge
from hounsfield.components.merge_stores.run import run as merge
from hounsfield.components.plan_ingest.config import Config as Plan
from hounsfield.components.plan_ingest.run import run as plan
from hounsfield.data.series_store import SeriesStore
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


def series(folder: Path, number: int, **more: object) -> list:
    uid = {"series": f"1.2.3.{number}", "frame_of_reference": f"1.2.{number}", "patient": f"P{number}"}
    return factory.write_series(folder, factory.phantom(seed=number), **(uid | more))  # type: ignore[arg-type]


def volume(path: Path, number: int, label: bool = True) -> None:
    """A NIfTI file of the series `number`, its image or the voxels above 0 HU."""
    hu = factory.phantom(seed=number)
    image = sitk.GetImageFromArray((hu > 0).astype(np.uint8) if label else hu)
    image.SetSpacing((0.8, 0.8, 2.5))
    image.SetOrigin((-40, -30, 100))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every way in which files depend on one another, and files of no use."""
    root = tmp_path_factory.mktemp("data")
    for name in ("all segmentations", "elsewhere"):
        (root / name).mkdir()
    for number in (1, 2):
        mask = factory.phantom(seed=number) > 0
        slices = series(root / f"seg{number}" / "ct", number)
        factory.write_seg(root / "all segmentations" / f"{number}.dcm", slices, {"tumour": mask})
    for number in (3, 4):
        series(root / f"volume{number}" / "ct", number)
        volume(root / f"volume{number}" / "labels" / "l.nii.gz", number)
    for number in (5, 6):
        series(root / "one folder" / f"s{number}", number, patient="P5", origin=(-40, -30, 100 + number))
    volume(root / "one folder" / "label.nii.gz", 5)
    slices = series(root / "frame", 7)
    factory.write_seg(root / "elsewhere" / "x.dcm", slices, {"tumour": factory.phantom(seed=7) > 0}, references=False)
    series(root / "scattered" / "a", 8)
    for path in sorted((root / "scattered" / "a").iterdir())[:3]:
        (root / "scattered" / "b").mkdir(exist_ok=True)
        path.rename(root / "scattered" / "b" / path.name)
    shutil.copytree(root / "seg1" / "ct", root / "seg1" / "copies")
    series(root / "broken", 9)
    next((root / "broken").iterdir()).write_bytes(b"not DICOM")
    series(root / "cut", 10)
    cut = sorted((root / "cut").iterdir())[2]
    cut.write_bytes(cut.read_bytes()[:-200])
    factory.write_seg(root / "orphan.dcm", series(root / "gone", 11), {"tumour": factory.phantom(seed=11) > 0})
    shutil.rmtree(root / "gone")
    (root / "notes.txt").write_text("nothing")
    volume(root / "lonely" / "l.nii", 12)
    return root


def assert_equal(store: Path, other: Path) -> None:
    """The same files, byte for byte."""
    files = sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    assert sorted(path.relative_to(store) for path in store.rglob("*") if path.is_file()) == files
    for name in files:
        assert (store / name).read_bytes() == (other / name).read_bytes(), name


def sharded(out: Path, most: int, folders: list[str], cases: str = "") -> list[SeriesStore]:
    """The stores of all shards, merged into `out/merged`."""
    items = plan(Plan(series_per_shard=most), folders, cases, out / "plan")
    stores = [out / f"store-{number}" for number in range(len(items))]
    for item, store in zip(items, stores, strict=True):
        ingest(Ingest(), folders, cases, store, out / "plan", item["shard"])
    merge(Merge(), stores, out / "merged")
    return [SeriesStore(store) for store in stores]


@pytest.mark.parametrize("most", [1, 3, 100])
def test_merged_stores_of_folders_equal_the_undivided_one(data: Path, tmp_path: Path, most: int) -> None:
    stores = sharded(tmp_path, most, [str(data)])
    ingest(Ingest(), [str(data)], "", tmp_path / "whole")
    assert_equal(tmp_path / "merged", tmp_path / "whole")
    whole = SeriesStore(tmp_path / "whole")
    assert len(whole.series) == 8
    assert {"label-without-image", "not-dicom", "unreadable", "duplicate-slice"} <= whole.manifest["rejected"].keys()
    sizes = [len(store.series) for store in stores]
    assert sum(sizes) == 8
    assert max(sizes) <= max(most, 2), "two series share a folder with a label volume"
    assert (len(stores) > 1) == (most < 100)


def test_plan_names_no_file_and_no_patient(data: Path, tmp_path: Path) -> None:
    plan(Plan(series_per_shard=1), [str(data)], "", tmp_path / "plan")
    text = (tmp_path / "plan").read_text()
    assert not [name for name in ("seg1", "P1", "1.2.3", "volume") if name in text]
    content = json.loads(text)
    keys = [key for shard in content["shards"] for key in shard]
    assert len(keys) == len(set(keys)) == sum(path.is_file() for path in data.rglob("*"))


@pytest.mark.parametrize("most", [1, 2])
def test_merged_stores_of_a_cases_file_equal_the_undivided_one(data: Path, tmp_path: Path, most: int) -> None:
    volume(tmp_path / "image.nii.gz", 20, label=False)
    volume(tmp_path / "label.nii.gz", 20)
    rows = [
        f"{data}/seg1/ct,{data}/all segmentations/1.dcm,,",
        f"{data}/volume3,,,train",
        "image.nii.gz,label.nii.gz,P20,test",
        f"{data}/seg1/copies,,P1,",
        f"{data}/broken,,,",
        "image.nii.gz,label.nii.gz,P20,test",
        f"{data}/frame,{data}/notes.txt,,",
        f"{data}/volume4,{data}/volume4/labels/l.nii.gz,P4,val",
    ]
    cases = tmp_path / "cases.csv"
    cases.write_text("\n".join(["image,label,patient,split", *rows]) + "\n")
    stores = sharded(tmp_path, most, [], str(cases))
    ingest(Ingest(), [], str(cases), tmp_path / "whole")
    assert_equal(tmp_path / "merged", tmp_path / "whole")
    assert SeriesStore(tmp_path / "whole").manifest["rejected"]["duplicate-series"] == 7
    assert len(stores) == {1: 6, 2: 4}[most]
    assert max(len(store.series) for store in stores) <= most


def test_without_a_bound_there_is_one_shard(data: Path, tmp_path: Path) -> None:
    assert plan(Plan(), [str(data)], "", tmp_path / "plan") == [{"shard": ""}]
    ingest(Ingest(), [str(data)], "", tmp_path / "store", tmp_path / "plan", "")
    merge(Merge(), [tmp_path / "store"], tmp_path / "merged")
    assert_equal(tmp_path / "merged", tmp_path / "store")
    volumes = [next((tmp_path / name / "volumes").iterdir()) for name in ("store", "merged")]
    assert volumes[0].stat().st_ino == volumes[1].stat().st_ino


def test_prefix_is_divided_by_its_listing(tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = f"{tmp_path.name}/in"
    for number in (1, 2, 3):
        slices = series(tmp_path / "in" / f"p{number}" / "ct", number)
        factory.write_seg(tmp_path / "in" / f"p{number}" / "s.dcm", slices, {"t": factory.phantom(seed=number) > 0})
    (tmp_path / "in" / "notes.txt").write_text("nothing")
    for path in (tmp_path / "in").rglob("*"):
        if path.is_file():
            s3.upload_file(str(path), BUCKET, f"{prefix}/{path.relative_to(tmp_path / 'in')}")
    with monkeypatch.context() as patch:
        patch.setattr("hounsfield.dicom.sources.download", None)
        assert len(plan(Plan(series_per_shard=2), [f"s3://{BUCKET}/{prefix}"], "", tmp_path / "plan")) == 2
    stores = sharded(tmp_path, 2, [f"s3://{BUCKET}/{prefix}"])
    assert [len(store.series) for store in stores] == [1, 2]
    ingest(Ingest(), [f"s3://{BUCKET}/{prefix}"], "", tmp_path / "whole")
    assert_equal(tmp_path / "merged", tmp_path / "whole")


def test_cases_file_on_s3_brings_only_the_rows_of_its_shard(tmp_path: Path, s3: Any) -> None:
    prefix = f"{tmp_path.name}/cases"
    for number in (1, 2):
        volume(tmp_path / f"{number}.nii", number, label=False)
        s3.upload_file(str(tmp_path / f"{number}.nii"), BUCKET, f"{prefix}/{number}.nii")
    s3.put_object(Bucket=BUCKET, Key=f"{prefix}/cases.csv", Body=b"image\n1.nii\n2.nii\n")
    cases = f"s3://{BUCKET}/{prefix}/cases.csv"
    assert len(plan(Plan(series_per_shard=1), [], cases, tmp_path / "plan")) == 2
    ingest(Ingest(), [], cases, tmp_path / "whole")
    s3.delete_object(Bucket=BUCKET, Key=f"{prefix}/1.nii")
    ingest(Ingest(), [], cases, tmp_path / "second", tmp_path / "plan", "1")
    row = SeriesStore(tmp_path / "second").series[0]
    assert row in SeriesStore(tmp_path / "whole").series


def test_refusals_name_what_does_not_fit(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="either --data"):
        plan(Plan(series_per_shard=1), [], "", tmp_path / "plan")
    plan(Plan(series_per_shard=1), [str(data)], "", tmp_path / "plan")
    with pytest.raises(ArtifactError, match="has no shard 99: it has"):
        ingest(Ingest(), [str(data)], "", tmp_path / "x", tmp_path / "plan", "99")
    (tmp_path / "cases.csv").write_text(f"image\n{data}/seg1\n")
    with pytest.raises(ArtifactError, match="divides files, the input has lines"):
        ingest(Ingest(), [], str(tmp_path / "cases.csv"), tmp_path / "x", tmp_path / "plan", "0")
    with pytest.raises(ArtifactError, match="is not a plan"):
        ingest(Ingest(), [str(data)], "", tmp_path / "x", data / "notes.txt", "0")
    with pytest.raises(InputError, match="no store to merge"):
        merge(Merge(), [], tmp_path / "x")
    ingest(Ingest(), [str(data)], "", tmp_path / "one", tmp_path / "plan", "0")
    ingest(Ingest(min_slices=4), [str(data)], "", tmp_path / "two", tmp_path / "plan", "1")
    with pytest.raises(InputError, match="different settings or pseudonym keys"):
        merge(Merge(), [tmp_path / "one", tmp_path / "two"], tmp_path / "x")
    (tmp_path / "plan").write_text(json.dumps({"by": "files", "shards": [[], []]}))
    for name in ("three", "four"):
        ingest(Ingest(), [str(data)], "", tmp_path / name, tmp_path / "plan", "0")
    with pytest.raises(InputError, match="no usable CT series"):
        merge(Merge(), [tmp_path / "three", tmp_path / "four"], tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_series_in_two_shards_is_taken_once(data: Path, tmp_path: Path) -> None:
    """As happens when a listing cannot tell that two folders hold the same series."""
    for name in ("ct", "copies"):
        ingest(Ingest(), [str(data / "seg1" / name)], "", tmp_path / name)
    merge(Merge(), [tmp_path / "ct", tmp_path / "copies"], tmp_path / "merged")
    store = SeriesStore(tmp_path / "merged")
    assert [row.key for row in store.series] == [row.key for row in SeriesStore(tmp_path / "ct").series]
    assert store.manifest["rejected"] == {"duplicate-series": 6}


SHARDED = """
import sys
from kfp import dsl, local
from hounsfield.pipelines.parts import converted

@dsl.pipeline
def sharded(cases: str = "", series_per_shard: int = 0, size: int = 16, max_prevalence: float = 1.0) -> dsl.Dataset:
    return converted("lung-tumour", locals())[1]

cases, root = sys.argv[1:]
for most in (0, 2):
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=f"{root}/{most}")
    sharded(cases=cases, series_per_shard=most)
"""


@pytest.mark.slow
def test_pipelines_come_to_the_same_slice_set_in_shards(tmp_path: Path) -> None:
    lines = ["image,label,split"]
    for number, split in enumerate(("train", "train", "val", "test", "test")):
        volume(tmp_path / f"{number}.nii", number, label=False)
        volume(tmp_path / f"{number}-label.nii", number)
        lines.append(f"{number}.nii,{number}-label.nii,{split}")
    (tmp_path / "cases.csv").write_text("\n".join(lines) + "\n")
    script = tmp_path / "pipeline.py"
    script.write_text(SHARDED)
    command = [sys.executable, str(script), str(tmp_path / "cases.csv"), str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for made in ("merge-stores/store", "window-convert/slices"):
        whole, merged = (next((tmp_path / "runs" / most).glob(f"sharded-*/{made}")) for most in "02")
        assert_equal(merged, whole)
    assert len(list((tmp_path / "runs" / "2").glob("sharded-*/for-loop-*/dicom-ingest/store"))) == 3
