"""A dataset that grows: a folder or s3:// prefix with a version for every update.

volumes/KEY-HASH.arrow   voxels of a series, shared by all versions; HASH is that of its pixels and label
versions/000004-TOKEN/   manifest and tables of a series store, without voxels
versions/000004.json     names those tables, and the state of the input that they were made of: version 4 exists

The latest version is the one with the highest number. Its `.json` is made as the last thing, and only where there is
none: of two updates at once the second finds its number taken and goes on from the version of the first.
"""

import json
import os
import re
import secrets
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from hounsfield import remote
from hounsfield.data.series_store import SeriesRow, SeriesStore, SeriesStoreWriter
from hounsfield.errors import ArtifactError, InputError
from hounsfield.remote.failures import sentences
from hounsfield.remote.place import Place
from hounsfield.storage import sha256_bytes

_DOWNLOADS = 4
_VERSION = re.compile(r"versions/(\d{6})\.json")
_TABLES = re.compile(r"versions/\.?(\d{6})-\w+(\.partial-\w+)?")


DATASETS = "HOUNSFIELD_DATASETS"
"""Environment variable: folder or s3:// prefix in which a dataset that is given by a mere name lies."""


class Dataset:
    """A growing dataset at `location`, which need not exist yet; a name without a slash lies in HOUNSFIELD_DATASETS.

    Raises:
        InputError: `location` holds something else, or the storage cannot be reached.
    """

    def __init__(self, location: str) -> None:
        if not location.strip():
            raise InputError("no dataset: give --dataset, a folder or s3://bucket/prefix in which it grows")
        datasets = os.environ.get(DATASETS, "")
        self.location = (f"{datasets}/{location}" if datasets and "/" not in location else location).rstrip("/")
        self._place: _Folder | _Bucket = (
            _Bucket(self.location) if remote.is_remote(self.location) else _Folder(Path(self.location).expanduser())
        )

    def latest(self) -> int:
        """Number of the latest version; 0 when there is none."""
        names = self._place.names("versions")
        return max((int(found[1]) for name in names if (found := _VERSION.fullmatch(name))), default=0)

    def tables(self, version: int) -> SeriesStore:
        """The series store of a version, without its voxels.

        Raises:
            ArtifactError: there is no such version.
        """
        return SeriesStore(remote.fetch(self._place.address(f"versions/{self._pointer(version)['tables']}")))

    def made_of(self, version: int) -> str:
        """The state of the input that a version was made of, as `commit` was given it.

        Raises:
            ArtifactError: there is no such version.
        """
        return self._pointer(version)["input"]

    def add_volume(self, row: SeriesRow, file: Path) -> None:
        """Move the voxels of a series into the dataset; safe to call from several threads."""
        self._place.move(file, _stored(row))

    def take_volumes(self, version: int, writer: SeriesStoreWriter) -> None:
        """Put the voxels of all series of a version into the store of `writer`.

        Raises:
            ArtifactError: some are missing or damaged.
        """
        rows = {_stored(row): row.key for row in self.tables(version).series}
        self._place.bring(list(rows), lambda name, file: writer.take_volume(rows[name], file), writer.directory)

    def commit(self, version: int, tables: Path, made_of: str) -> bool:
        """Make the manifest and tables in the folder `tables` the given version, unless that exists already.

        The voxels of its series must be in the dataset. What killed updates left behind is removed.
        """
        name = f"{version:06d}-{secrets.token_hex(4)}"
        self._place.copy(tables, f"versions/{name}")
        pointer = json.dumps({"tables": name, "input": made_of}).encode()
        if not self._place.create(f"versions/{version:06d}.json", pointer):
            self._place.remove(f"versions/{name}")
            return False
        self._tidy(version)
        return True

    def _pointer(self, version: int) -> dict[str, str]:
        content = self._place.read(f"versions/{version:06d}.json")
        if content is None:
            raise ArtifactError(f"dataset {self.location} has no version {version}: its latest is {self.latest()}")
        pointer: dict[str, str] = json.loads(content)
        return pointer

    def _tidy(self, latest: int) -> None:
        names = set(self._place.names("versions"))
        pointers = [self._place.read(name) for name in sorted(names) if _VERSION.fullmatch(name)]
        used = {f"versions/{json.loads(pointer)['tables']}" for pointer in pointers if pointer}
        folders = {found[0]: int(found[1]) for name in names if (found := _TABLES.match(name))}
        for name, version in folders.items():
            if version <= latest and name not in used:
                self._place.remove(name)


def _stored(row: SeriesRow) -> str:
    return f"volumes/{row.key}-{sha256_bytes(f'{row.pixel_sha256} {row.label_sha256}'.encode())[:16]}.arrow"


class _Folder:
    def __init__(self, root: Path) -> None:
        self.root = root
        if root.exists() and not root.is_dir():
            raise InputError(f"dataset {root} is a file: give a folder or s3://bucket/prefix")
        if root.is_dir() and {path.name for path in root.iterdir()} - {"versions", "volumes"}:
            raise InputError(f"{root} is neither empty nor a dataset: choose another --dataset")

    def address(self, name: str) -> str:
        return str(self.root / name)

    def names(self, folder: str) -> list[str]:
        if not (self.root / folder).is_dir():
            return []
        return [f"{folder}/{path.name}" for path in (self.root / folder).iterdir()]

    def read(self, name: str) -> bytes | None:
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None

    def move(self, file: Path, name: str) -> None:
        partial = self._partial(name)
        shutil.move(file, partial)
        partial.replace(self.root / name)

    def copy(self, folder: Path, name: str) -> None:
        shutil.copytree(folder, self._partial(name)).rename(self.root / name)

    def create(self, name: str, content: bytes) -> bool:
        partial = self._partial(name)
        partial.write_bytes(content)
        try:
            os.link(partial, self.root / name)
        except FileExistsError:
            return False
        except OSError as error:
            raise InputError(
                f"the file system of dataset {self.root} has no hard links ({error.strerror}): use another, or s3://"
            ) from error
        finally:
            partial.unlink()
        return True

    def bring(self, names: list[str], take: Callable[[str, Path], None], scratch: Path) -> None:
        for name in names:
            if not (self.root / name).is_file():
                raise ArtifactError(f"dataset {self.root} has lost {name}: restore it, or start a new dataset")
            take(name, self.root / name)

    def remove(self, name: str) -> None:
        shutil.rmtree(self.root / name, ignore_errors=True)

    def _partial(self, name: str) -> Path:
        target = self.root / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"dataset {self.root} cannot be written ({error.strerror}): choose another --dataset"
            ) from error
        return target.with_name(f".{target.name}.partial-{secrets.token_hex(4)}")


class _Bucket:
    def __init__(self, location: str) -> None:
        self.location = location
        self.place = Place.at(location)
        if not self.place.key:
            raise InputError(f"dataset {location} is a whole bucket: give s3://bucket/prefix")

    def address(self, name: str) -> str:
        return f"{self.location}/{name}"

    def names(self, folder: str) -> list[str]:
        return [f"{folder}/{name}" for name in self._objects(folder)]

    def read(self, name: str) -> bytes | None:
        with sentences(self.location, self.place.bucket, "read"):
            if self.place.object(self.place.inside(name)) is None:
                return None
            answer = self.place.s3.get_object(Bucket=self.place.bucket, Key=self.place.inside(name))
            content: bytes = answer["Body"].read()
            return content

    def move(self, file: Path, name: str) -> None:
        remote.upload(file, self.address(name))
        file.unlink()

    def copy(self, folder: Path, name: str) -> None:
        remote.upload(folder, self.address(name))

    def create(self, name: str, content: bytes) -> bool:
        key = {"Bucket": self.place.bucket, "Key": self.place.inside(name)}
        from botocore.exceptions import ClientError

        with sentences(self.location, self.place.bucket, "write"):
            try:
                self.place.s3.put_object(**key, Body=content, IfNoneMatch="*")
            except ClientError as error:
                if error.response["Error"]["Code"] in (
                    "PreconditionFailed",
                    "ConditionalRequestConflict",
                    "412",
                    "409",
                ):
                    return False
                raise
        return True

    def bring(self, names: list[str], take: Callable[[str, Path], None], scratch: Path) -> None:
        there = set(self.names("volumes"))
        lost = [name for name in names if name not in there]
        if lost:
            raise ArtifactError(f"dataset {self.location} has lost {lost[0]}: restore it, or start a new dataset")
        folder = scratch / ".volumes"
        with ThreadPoolExecutor(_DOWNLOADS) as pool:
            list(pool.map(lambda name: remote.download(self.address(name), folder / name), names))
        for name in names:
            take(name, folder / name)
        shutil.rmtree(folder)

    def remove(self, name: str) -> None:
        remote.remove(self.address(name))

    def _objects(self, folder: str) -> dict[str, Any]:
        with sentences(self.location, self.place.bucket, "read"):
            return replace(self.place, key=self.place.inside(folder)).below()
