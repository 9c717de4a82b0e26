"""Files to objects and back: in parallel, in parts, with checksums and a bar."""

import hashlib
import threading
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from hounsfield.errors import ArtifactError
from hounsfield.progress import Progress
from hounsfield.remote.place import ATTEMPTS, FILES_SHA256, SHA256, TRANSFERS, Object, Place, parallel
from hounsfield.storage import MANIFEST

MIB = 2**20
PART_BYTES = 16 * MIB
"""Objects from this size on are transferred in parts of it (larger ones above S3's limit of 10 000 parts)."""


class Transfer:
    """Parallel transfer of many files, in parts where they are large, with a bar of the bytes (in MiB)."""

    def __init__(self, place: Place, label: str, size: int) -> None:
        from boto3.s3.transfer import TransferConfig, create_transfer_manager

        self.place, self.size, self.done = place, size, 0
        self.progress = Progress(label, max(1, round(size / MIB)))
        self.lock = threading.Lock()
        config = TransferConfig(
            multipart_threshold=PART_BYTES,
            multipart_chunksize=PART_BYTES,
            max_concurrency=TRANSFERS,
            num_download_attempts=ATTEMPTS,
            preferred_transfer_client="classic",
        )
        self.manager = create_transfer_manager(place.s3, config)
        # With AWS_REQUEST_CHECKSUM_CALCULATION=when_required the server does not know S3's own checksums.
        required = place.s3.meta.config.request_checksum_calculation == "when_required"
        self.checksum = {} if required else {"ChecksumAlgorithm": "SHA256"}

    def __enter__(self) -> "Transfer":
        self.progress.__enter__()
        self.manager.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self.manager.__exit__(*error)
        finally:
            self.progress.__exit__(*error)

    def put(self, paths: Mapping[str, Path], metadata: Mapping[str, dict[str, str]]) -> None:
        """Upload files; returns when all are stored."""
        futures = [
            self.manager.upload(
                str(path),
                self.place.bucket,
                self.place.inside(name),
                extra_args={"Metadata": metadata[name], **self.checksum},
                subscribers=[self],
            )
            for name, path in paths.items()
        ]
        for future in futures:
            future.result()

    def get(self, objects: Mapping[str, Object], target: Path) -> None:
        """Download objects to their names below `target`; returns when all are there."""
        futures = []
        for name, item in objects.items():
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            futures.append(
                self.manager.download(self.place.bucket, item.key, str(path), subscribers=[Known(item), self])
            )
        for future in futures:
            future.result()

    def on_progress(self, future: Any, bytes_transferred: int, **_: Any) -> None:
        """Called by the transfer manager, from its threads; less than 0 when a part starts again."""
        with self.lock:
            before, self.done = self.done, self.done + bytes_transferred
            units = self.progress.total if self.done >= self.size else self.done // MIB
            if units != self.progress.done or before // MIB != self.done // MIB:
                self.progress.advance(units - self.progress.done)


class Known:
    """Tells the transfer manager size and entity tag, so that it does not ask, and refuses an object that changed."""

    def __init__(self, item: Object) -> None:
        self.item = item

    def on_queued(self, future: Any, **_: Any) -> None:
        future.meta.provide_transfer_size(self.item.size)
        future.meta.provide_object_etag(self.item.etag)


def bring(place: Place, found: Mapping[str, Object], chosen: Collection[str], target: Path, resumed: bool) -> None:
    """Bring `target` to the objects `chosen` of those `found`, the manifest last, and verify their checksums.

    Args:
        resumed: `target` holds nothing but what an earlier call for the same objects downloaded.

    Raises:
        ArtifactError: an object does not have its checksum, or those found are not those of the chosen manifest.
    """
    metadata = place.metadata({name: found[name] for name in chosen})
    if FILES_SHA256 in metadata.get(MANIFEST, ()):
        metadata |= place.metadata({name: item for name, item in found.items() if name not in metadata})
        _check_together(place, metadata)
    hashes = {name: given.get(SHA256, "") for name, given in metadata.items()}

    def missing(name: str) -> bool:
        path = target / name
        if not has_size(path, found[name].size):
            return True
        return sha256(path) != hashes[name] if hashes[name] else not resumed

    def damaged(name: str) -> bool:
        path = target / name
        if not hashes[name] or sha256(path) == hashes[name]:
            return False
        path.unlink()
        return True

    target.parent.mkdir(parents=True, exist_ok=True)
    needed = [name for name, yes in zip(chosen, parallel(missing, chosen), strict=True) if yes]
    if needed:
        with Transfer(place, "download", sum(found[name].size for name in needed)) as transfer:
            for batch in manifest_last(needed):
                transfer.get({name: found[name] for name in batch}, target)
                if count := sum(parallel(damaged, batch)):
                    raise ArtifactError(f"{place.location}: the SHA-256 of {count} objects does not fit: upload again")
    if resumed and target.is_dir():
        for name in files_below(target).keys() - set(chosen):
            (target / name).unlink()


def manifest_last(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """The names but the manifest, and the manifest."""
    everything = list(names)
    return [name for name in everything if name != MANIFEST], [name for name in everything if name == MANIFEST]


def _check_together(place: Place, metadata: Mapping[str, Mapping[str, str]]) -> None:
    """Check that the objects are those that the manifest was uploaded with.

    Raises:
        ArtifactError: they are not.
    """
    if metadata[MANIFEST][FILES_SHA256] != together({name: given.get(SHA256, "") for name, given in metadata.items()}):
        raise ArtifactError(
            f"{place.location} is not what its {MANIFEST} says: objects are missing, foreign or of another upload: "
            "make it again"
        )


def files_below(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def together(hashes: Mapping[str, str]) -> str:
    """One hash of names and hashes of an artifact's files."""
    lines = sorted(f"{digest} {name}\n" for name, digest in hashes.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()
