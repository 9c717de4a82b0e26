"""Artifacts and files on S3, at Amazon or any endpoint that speaks its protocol.

A location is a local path or `s3://bucket/key`; `minio://`, as Kubeflow Pipelines writes it, means the same. Endpoint,
region and credentials are boto3's own: AWS_ENDPOINT_URL, AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID, ..., or the identity
that a cloud gives to a pod.

Every object we write carries the SHA-256 of its bytes as metadata, and the `manifest.json` of an artifact that of all
its files. The manifest goes up last and is taken away first, so a remote artifact is complete or absent.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from hounsfield.errors import ArtifactError, InputError
from hounsfield.remote.failures import endpoint, sentences
from hounsfield.remote.place import FILES_SHA256, SCHEMES, SHA256, Location, Object, Place, client, is_remote, parallel
from hounsfield.remote.transfer import (
    Transfer,
    bring,
    files_below,
    has_size,
    manifest_last,
    sha256,
    together,
)
from hounsfield.storage import MANIFEST

__all__ = [
    "SCHEMES", "Location", "check_writable", "client", "download", "exists", "fetch", "fingerprint", "is_remote",
    "listed", "output", "remove", "upload",
]  # fmt: skip


def exists(location: Location) -> bool:
    """Whether there is a file, or a complete artifact, at `location` (locally: anything).

    Raises:
        InputError: the storage cannot be reached or refuses.
    """
    if not is_remote(location):
        return Path(location).exists()
    place = Place.at(location)
    with sentences(place.location, place.bucket, "read"):
        return place.object(place.inside(MANIFEST)) is not None or place.object(place.key) is not None


def fingerprint(location: Location) -> str:
    """SHA-256 over names, sizes and entity tags of the objects at a remote `location`: it changes with any of them.

    Raises:
        InputError: the storage cannot be reached or refuses.
    """
    place = Place.at(location)
    with sentences(place.location, place.bucket, "read"):
        return _fingerprint(place, place.find())


def fetch(location: Location, wanted: Callable[[str], bool] = lambda name: True) -> Path:
    """Local path of a file or an artifact; what is remote is downloaded once into the temporary directory.

    An interrupted download goes on where it ended, and another process that fetches the same waits for it.

    Args:
        wanted: tells by its name which file of a remote artifact is needed.

    Raises:
        ArtifactError: there is nothing at `location`, it is incomplete, or its checksums do not fit.
        InputError: the storage cannot be reached or refuses, or the temporary directory is full.
    """
    if not is_remote(location):
        return Path(location)
    place = Place.at(location)
    with sentences(place.location, place.bucket, "read"):
        found = place.find()
        if not found:
            raise ArtifactError(f"{location} does not exist")
        if "" not in found and MANIFEST not in found:
            raise ArtifactError(f"{location} is not a complete artifact: it has no {MANIFEST}")
        chosen = {name: item for name, item in found.items() if wanted(name)}
        folder = _cache() / _fingerprint(place, chosen)
        folder.mkdir(exist_ok=True)
        whole, partial = folder / place.name, folder / f".{place.name}.partial"
        with FileLock(folder / ".lock"):
            if whole.exists() and not all(has_size(whole / name, item.size) for name, item in chosen.items()):
                whole.rename(partial)
            if not whole.exists():
                bring(place, found, chosen, partial, resumed=True)
                partial.rename(whole)
        return whole


def listed(location: Location) -> list[str]:
    """Names of the files below a remote `location`, in order; "" alone for a file at it.

    Raises:
        InputError: the storage cannot be reached or refuses.
    """
    place = Place.at(location)
    with sentences(place.location, place.bucket, "read"):
        return sorted(place.find())


def download(location: Location, target: Path, wanted: Callable[[str], bool] = lambda name: True) -> int:
    """Copy the file at `location` to `target`, or everything below it into the folder `target`; returns their number.

    Files that are there already with the checksum of their object are left alone.

    Args:
        wanted: tells by its name which file is needed; "" is the name of a file at `location` itself.

    Raises:
        ArtifactError: a checksum does not fit.
        InputError: the storage cannot be reached or refuses, or `target` cannot be written.
    """
    place = Place.at(location)
    with sentences(place.location, place.bucket, "read"):
        found = place.find()
        chosen = [name for name in found if wanted(name)]
        bring(place, found, chosen, Path(target), resumed=False)
        return len(chosen)


def upload(source: Path, location: Location) -> None:
    """Make the remote `location` equal to the file or folder `source`.

    A file replaces its object at once. Of a folder, objects with the right checksum stay, so that an interrupted upload
    goes on where it ended; objects that the folder does not have are removed.

    Raises:
        InputError: `source` does not exist, the storage cannot be reached or refuses, or `location` holds objects that
            are not ours.
    """
    place, source = _writable(location), Path(source)
    if not source.exists():
        raise InputError(f"{source} does not exist: nothing to upload to {location}")
    paths = {"": source} if source.is_file() else files_below(source)
    with sentences(place.location, place.bucket, "write"):
        hashes = dict(parallel(lambda item: (item[0], sha256(item[1])), paths.items()))
        metadata = {name: {SHA256: digest} for name, digest in hashes.items()}
        if MANIFEST in hashes:
            metadata[MANIFEST][FILES_SHA256] = together(hashes)
        there = place.itself() if "" in paths else place.below()
        known = place.metadata(there)
        if "" not in paths:
            _refuse_foreign(place, known)
        changed = [name for name in paths if known.get(name) != metadata[name]]
        stale = [name for name in there if name not in paths]
        if not changed and not stale:
            return
        for batch in reversed(manifest_last([*stale, *({MANIFEST} & there.keys())])):
            place.delete(batch)
        batches = manifest_last(dict.fromkeys([*changed, *({MANIFEST} & paths.keys())]))
        size = sum(paths[name].stat().st_size for batch in batches for name in batch)
        with Transfer(place, "upload", size) as transfer:
            for batch in batches:
                transfer.put({name: paths[name] for name in batch}, metadata)


def remove(location: Location) -> None:
    """Remove the file or artifact at a remote `location`, its manifest first; nothing there is no error.

    Raises:
        InputError: the storage cannot be reached or refuses.
    """
    place = Place.at(location)
    with sentences(place.location, place.bucket, "remove"):
        for batch in reversed(manifest_last(place.find())):
            place.delete(batch)


@contextmanager
def output(location: Location) -> Iterator[Path]:
    """Yield the local path to write an artifact to; a remote `location` gets it when the block ends without an error.

    Whether a remote location can be written is found out before the block.

    Raises:
        InputError: the storage cannot be reached or refuses, or `location` holds objects that are not ours.
    """
    if not is_remote(location):
        yield Path(location)
        return
    check_writable(location)
    with tempfile.TemporaryDirectory(prefix="hounsfield-out-") as folder:
        path = Path(folder) / Place.named(location).name
        yield path
        upload(path, location)
        print(f"stored at {location}", flush=True)


def check_writable(location: Location) -> None:
    """Check that an artifact can be written to a remote `location`, for work that takes long before it writes.

    Raises:
        InputError: the storage cannot be reached or refuses, or `location` holds objects that are not ours.
    """
    place = _writable(location)
    with sentences(place.location, place.bucket, "write"):
        there = place.below()
        if MANIFEST not in there:
            _refuse_foreign(place, place.metadata(there))
        key = place.inside(MANIFEST)
        begun = place.s3.create_multipart_upload(Bucket=place.bucket, Key=key)
        place.s3.abort_multipart_upload(Bucket=place.bucket, Key=key, UploadId=begun["UploadId"])


def _writable(location: Location) -> Place:
    place = Place.at(location)
    if not place.key:
        raise InputError(f"{location} is a whole bucket: give a key in it, s3://{place.bucket}/key")
    return place


def _refuse_foreign(place: Place, known: Mapping[str, dict[str, str]]) -> None:
    """An interrupted upload has our checksums, an artifact a manifest: anything else is not ours to replace."""
    if MANIFEST not in known and any(SHA256 not in given for given in known.values()):
        raise InputError(
            f"output {place.location} holds objects that are not an artifact of hounsfield: choose another --out"
        )


def _fingerprint(place: Place, found: Mapping[str, Object]) -> str:
    lines = [f"{item.key}\0{item.size}\0{item.etag}\n" for item in found.values()]
    return hashlib.sha256("".join([f"{endpoint()}\0{place.bucket}\n", *sorted(lines)]).encode()).hexdigest()


def _cache() -> Path:
    """Folder of what was fetched, for this user alone."""
    folder = Path(tempfile.gettempdir()) / f"hounsfield-fetched-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise InputError(f"{folder} belongs to another user: set TMPDIR to a folder of your own")
    return folder
