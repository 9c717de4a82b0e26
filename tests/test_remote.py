"""Artifacts on S3, against a SeaweedFS server on the loopback: round trips, resumption, damage and refusals."""

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from s3_server import BUCKET, Proxy, client
from stores import make_store

from hounsfield import remote
from hounsfield.components.data_version.run import version_of
from hounsfield.errors import ArtifactError, InputError
from hounsfield.remote import transfer
from hounsfield.storage import write_manifest

MIB = 2**20
pytestmark = pytest.mark.usefixtures("s3_environment")


@pytest.fixture
def s3(s3_endpoint: str) -> Any:
    return client(s3_endpoint)


@pytest.fixture
def location(request: pytest.FixtureRequest) -> str:
    """A location of this test alone."""
    return f"s3://{BUCKET}/{request.node.name}/artifact"


def key(location: str, name: str = "") -> str:
    return location.removeprefix(f"s3://{BUCKET}/") + (f"/{name}" if name else "")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make_artifact(folder: Path, files: int, size: int, seed: int = 0) -> Path:
    """Files of bytes that do not repeat, and a manifest."""
    source = random.Random(seed)
    (folder / "parts").mkdir(parents=True)
    for number in range(files):
        (folder / "parts" / f"{number:04}").write_bytes(source.randbytes(size))
    write_manifest(folder, "test", 1, seed=seed)
    return folder


def test_artifact_comes_back_byte_for_byte(location: str, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", ["a", "b", "c"])
    assert not remote.exists(location)
    remote.upload(store, location)
    assert remote.exists(location)
    fetched = remote.fetch(location)
    assert fetched.name == "artifact"
    assert contents(fetched) == contents(store)
    assert remote.fetch(location.replace("s3://", "minio://") + "/") == fetched
    assert remote.download(location, tmp_path / "copy") == len(contents(store))
    assert contents(tmp_path / "copy") == contents(store)
    assert remote.listed(location) == sorted(contents(store))
    assert remote.download(location, tmp_path / "some", lambda name: name.startswith("volumes/")) == 3
    assert sorted(contents(tmp_path / "some")) == [name for name in remote.listed(location) if "volumes" in name]
    remote.remove(location)
    assert not remote.exists(location)
    with pytest.raises(ArtifactError, match="does not exist"):
        remote.fetch(location)


def test_files_by_themselves(location: str, tmp_path: Path) -> None:
    pointer = tmp_path / "latest.json"
    for text in ("one", "two"):
        pointer.write_text(text)
        remote.upload(pointer, f"{location}/latest.json")
        assert remote.fetch(f"{location}/latest.json").read_text() == text
        assert remote.fetch(f"{location}/latest.json").name == "latest.json"
    assert remote.exists(f"{location}/latest.json")
    assert not remote.exists(f"{location}/late")
    assert not remote.exists(location)
    remote.download(f"{location}/latest.json", tmp_path / "copy.json")
    assert (tmp_path / "copy.json").read_text() == "two"
    with pytest.raises(ArtifactError, match="is not a complete artifact: it has no manifest"):
        remote.fetch(location)
    remote.remove(f"{location}/latest.json")
    remote.remove(f"{location}/latest.json")
    assert not remote.exists(f"{location}/latest.json")


def test_local_locations_stay_as_they_are(tmp_path: Path) -> None:
    assert remote.fetch(str(tmp_path)) == tmp_path
    assert remote.exists(tmp_path)
    assert not remote.exists(tmp_path / "absent")
    with remote.output(tmp_path / "out") as path:
        assert path == tmp_path / "out"


def test_replacing_leaves_nothing_of_the_old(location: str, tmp_path: Path, s3: Any) -> None:
    remote.upload(make_artifact(tmp_path / "old", 5, 1000), location)
    remote.upload(new := make_artifact(tmp_path / "new", 2, 1000, seed=1), location)
    listed = s3.list_objects_v2(Bucket=BUCKET, Prefix=key(location))["Contents"]
    assert {item["Key"] for item in listed} == {key(location, name) for name in contents(new)}
    assert contents(remote.fetch(location)) == contents(new)


def test_output_is_uploaded_when_the_block_succeeds_alone(location: str, tmp_path: Path, s3: Any) -> None:
    with pytest.raises(FileExistsError), remote.output(location) as path:
        make_artifact(make_artifact(path, 1, 10), 1, 10)
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET, Prefix=key(location))
    with remote.output(location) as path:
        assert path.name == "artifact"
        made = contents(make_artifact(path, 2, 10))
    assert contents(remote.fetch(location)) == made
    assert not path.exists()
    assert not s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads")


def test_what_is_not_ours_is_not_replaced(location: str, tmp_path: Path, s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key=key(location, "thesis.docx"), Body=b"years of work")
    artifact = make_artifact(tmp_path / "artifact", 1, 10)
    with pytest.raises(InputError, match="holds objects that are not an artifact of hounsfield"):
        remote.upload(artifact, location)
    with pytest.raises(InputError, match="not an artifact of hounsfield"), remote.output(location):
        pytest.fail("the block was entered")
    with pytest.raises(InputError, match="is a whole bucket: give a key"):
        remote.upload(artifact, f"s3://{BUCKET}/")
    with pytest.raises(InputError, match="does not exist: nothing to upload"):
        remote.upload(tmp_path / "absent", location)
    assert s3.get_object(Bucket=BUCKET, Key=key(location, "thesis.docx"))["Body"].read() == b"years of work"


def test_large_objects_go_in_parts(location: str, tmp_path: Path, s3: Any) -> None:
    artifact = make_artifact(tmp_path / "artifact", 1, 40 * MIB)
    remote.upload(artifact, location)
    assert s3.head_object(Bucket=BUCKET, Key=key(location, "parts/0000"))["ETag"].endswith('-3"')
    assert contents(remote.fetch(location)) == contents(artifact)


def test_server_checks_what_arrives(location: str, tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By S3's own SHA-256, unless the environment says that the server has none."""
    for number, setting in enumerate(("when_supported", "when_required")):
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", setting)
        artifact = make_artifact(tmp_path / setting, 1, 100, seed=number)
        remote.upload(artifact, location)
        head = s3.head_object(Bucket=BUCKET, Key=key(location, "parts/0000"), ChecksumMode="ENABLED")
        assert ("ChecksumSHA256" in head) == (setting == "when_supported")
        assert contents(remote.fetch(location)) == contents(artifact)


@pytest.mark.slow
def test_more_than_a_page_of_objects(location: str, tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "artifact", 1100, 3)
    remote.upload(artifact, location)
    assert contents(remote.fetch(location)) == contents(artifact)
    remote.remove(location)
    assert remote.fingerprint(location) == remote.fingerprint(location)
    assert remote.download(location, tmp_path / "copy") == 0


UPLOAD = "import sys; from hounsfield import remote; remote.upload(sys.argv[1], sys.argv[2])"
FETCH = "import sys; from hounsfield import remote; print(remote.fetch(sys.argv[1]))"


def kill_when(proxy: Proxy, code: str, arguments: list[str], reached: Callable[[], bool]) -> None:
    """Run Python code and kill it with SIGKILL as soon as `reached`."""
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not reached():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_killed_upload_goes_on(
    location: str, tmp_path: Path, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = make_artifact(tmp_path / "artifact", 96, MIB // 2)
    with Proxy(s3_endpoint, 30 * MIB) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        kill_when(proxy, UPLOAD, [str(artifact), location], lambda: proxy.sent > 30 * MIB)
        assert not remote.exists(location)
        before = proxy.sent
        remote.upload(artifact, location)
        assert proxy.sent - before < 30 * MIB
        before = proxy.sent
        remote.upload(artifact, location)
        assert proxy.sent - before < MIB // 2
    assert contents(remote.fetch(location)) == contents(artifact)


def test_killed_download_goes_on(
    location: str, tmp_path: Path, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = make_artifact(tmp_path / "artifact", 96, MIB // 2)
    remote.upload(artifact, location)
    with Proxy(s3_endpoint, 30 * MIB) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        kill_when(proxy, FETCH, [location], lambda: proxy.received > 30 * MIB)
        before = proxy.received
        fetched = remote.fetch(location)
        assert proxy.received - before < 30 * MIB
        assert contents(fetched) == contents(artifact)
        before = proxy.received
        assert remote.fetch(location) == fetched
        assert proxy.received - before < MIB // 2
    (fetched / "parts" / "0003").unlink()
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    assert len(contents(remote.fetch(location))) == 97


def test_connections_that_break_are_taken_up_again(
    location: str, tmp_path: Path, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PART_BYTES", 5 * MIB)
    artifact = make_artifact(tmp_path / "artifact", 3, 12 * MIB)
    with Proxy(s3_endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        proxy.cut_after, proxy.cuts = 2 * MIB, 4
        remote.upload(artifact, location)
        assert proxy.cuts == 0
        proxy.cuts = 4
        assert contents(remote.fetch(location)) == contents(artifact)
        assert proxy.cuts == 0


def test_damage_is_noticed(location: str, tmp_path: Path, s3: Any) -> None:
    artifact = make_artifact(tmp_path / "artifact", 3, 1000)
    remote.upload(artifact, location)
    one = key(location, "parts/0001")
    written = s3.get_object(Bucket=BUCKET, Key=one)
    damaged = bytes([written["Body"].read()[0] ^ 1]) + (artifact / "parts" / "0001").read_bytes()[1:]
    s3.put_object(Bucket=BUCKET, Key=one, Body=damaged, Metadata=written["Metadata"])
    with pytest.raises(ArtifactError, match="the SHA-256 of 1 objects does not fit: upload again"):
        remote.fetch(location)
    s3.put_object(Bucket=BUCKET, Key=one, Body=damaged)
    with pytest.raises(ArtifactError, match=r"is not what its manifest.json says"):
        remote.fetch(location)
    s3.delete_object(Bucket=BUCKET, Key=one)
    with pytest.raises(ArtifactError, match=r"is not what its manifest.json says"):
        remote.download(location, tmp_path / "copy")
    remote.upload(artifact, location)
    assert contents(remote.fetch(location)) == contents(artifact)


def test_artifact_uploaded_by_others_is_read(location: str, tmp_path: Path, s3: Any) -> None:
    """Kubeflow Pipelines uploads a step's output itself, without our checksums."""
    artifact = make_artifact(tmp_path / "artifact", 3, 1000)
    for name, content in contents(artifact).items():
        s3.put_object(Bucket=BUCKET, Key=key(location, name), Body=content)
    assert contents(remote.fetch(location.replace("s3://", "minio://"))) == contents(artifact)
    remote.upload(artifact, location)
    assert "sha256" in s3.head_object(Bucket=BUCKET, Key=key(location, "parts/0000"))["Metadata"]


def test_writers_at_the_same_time_never_give_a_mixture(location: str, tmp_path: Path) -> None:
    one = make_artifact(tmp_path / "one", 12, 20_000, seed=1)
    two = make_artifact(tmp_path / "two", 9, 20_000, seed=2)
    seen: list[dict[str, bytes]] = []
    refused: list[str] = []

    def read() -> None:
        try:
            seen.append(contents(remote.fetch(location)))
        except (ArtifactError, InputError) as error:
            refused.append(str(error))

    for _ in range(3):
        writers = [threading.Thread(target=remote.upload, args=(source, location)) for source in (one, two)]
        for thread in writers:
            thread.start()
        while any(thread.is_alive() for thread in writers):
            read()
        read()
    remote.upload(one, location)
    read()
    assert seen[-1] == contents(one)
    assert all(content in (contents(one), contents(two)) for content in seen)
    known = ("does not exist", "not a complete artifact", "is not what its", "changed meanwhile", "does not fit")
    assert all(any(part in sentence for part in known) for sentence in refused), refused


def test_readers_at_the_same_time_download_once(
    location: str, tmp_path: Path, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = make_artifact(tmp_path / "artifact", 8, MIB)
    remote.upload(artifact, location)
    with Proxy(s3_endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        readers = [
            subprocess.Popen([sys.executable, "-c", FETCH, location], stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        folders = {reader.communicate()[0].splitlines()[-1] for reader in readers}
        assert 8 * MIB < proxy.received < 10 * MIB
    assert len(folders) == 1
    assert contents(Path(folders.pop())) == contents(artifact)


def test_version_of_data_follows_the_objects(location: str, s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key=key(location, "a"), Body=b"1")
    first = version_of([location])
    assert first == version_of([location])
    s3.put_object(Bucket=BUCKET, Key=key(location, "a"), Body=b"2")
    second = version_of([location])
    s3.put_object(Bucket=BUCKET, Key=key(location, "b"), Body=b"2")
    assert len({first, second, version_of([location])}) == 3
