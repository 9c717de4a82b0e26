"""Ingest from an S3 prefix, against a SeaweedFS server on the loopback."""

from pathlib import Path

import dicom_factory as factory
import pytest
from s3_server import client, free_ports

from hounsfield.components.dicom_ingest.config import Config
from hounsfield.components.dicom_ingest.run import run
from hounsfield.data.series_store import SeriesStore
from hounsfield.errors import InputError


@pytest.fixture(autouse=True)
def _environment(s3_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUNSFIELD_PSEUDONYM_KEY", "a key of the tests")


def test_prefix_gives_the_folders_store(s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hu = factory.phantom()
    slices = factory.write_series(tmp_path / "in" / "ct", hu)
    factory.write_seg(tmp_path / "in" / "seg.dcm", slices, {"tumour": hu > 0})
    s3 = client(s3_endpoint)
    for path in (tmp_path / "in").rglob("*"):
        if path.is_file():
            s3.upload_file(str(path), "ct-data", f"study/one/{path.relative_to(tmp_path / 'in')}")
    s3.put_object(Bucket="ct-data", Key="study/one-more/x", Body=b"not in the prefix")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    run(Config(), ["s3://ct-data/study/one"], None, tmp_path / "from-s3")
    run(Config(), [str(tmp_path / "in")], None, tmp_path / "from-folder")
    store = SeriesStore(tmp_path / "from-s3")
    assert store.manifest == SeriesStore(tmp_path / "from-folder").manifest
    assert store.manifest["labelled"] == 1
    assert not any((tmp_path / "tmp").iterdir())


def test_wrong_bucket_prefix_and_credentials(s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    with pytest.raises(InputError, match=r"s3://absent/x cannot be read .NoSuchBucket.: there is no bucket absent"):
        run(Config(), ["s3://absent/x"], None, tmp_path / "out")
    with pytest.raises(InputError, match="holds no file"):
        run(Config(), ["s3://ct-data/nothing/here"], None, tmp_path / "out")
    with pytest.raises(InputError, match="names no bucket"):
        run(Config(), ["s3:///x"], None, tmp_path / "out")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(InputError, match="check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        run(Config(), ["s3://ct-data/study"], None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unreachable_endpoint_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(InputError, match="check AWS_ENDPOINT_URL"):
        run(Config(), ["s3://ct-data/x"], None, tmp_path / "out")
