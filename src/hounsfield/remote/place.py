"""Where something lies on S3: endpoint, bucket, key, and the objects below it."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from hounsfield.errors import InputError
from hounsfield.remote.failures import endpoint, no_s3, sentences

Location = str | Path
T = TypeVar("T")
R = TypeVar("R")

SCHEMES = ("s3", "minio")
SHA256, FILES_SHA256 = "sha256", "files-sha256"
"""Names in the metadata of an object: of its bytes; of the names and hashes of all files of a manifest's artifact."""
TRANSFERS = 16
CONNECT_SECONDS, READ_SECONDS = 4, 60
ATTEMPTS = 8


def is_remote(location: Location) -> bool:
    """Whether `location` is on S3.

    Raises:
        InputError: an address of another kind.
    """
    scheme, separator, _ = str(location).partition("://")
    if not separator:
        return False
    if scheme in SCHEMES:
        return True
    if scheme == "gs":
        raise InputError(
            f"{location}: Google Cloud Storage is used through its S3 endpoint: write s3://bucket/key, set "
            "AWS_ENDPOINT_URL=https://storage.googleapis.com and the HMAC keys as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY"
        )
    raise InputError(f"{location}: expected a path or s3://bucket/key")


def client() -> Any:
    """The boto3 client of this process for S3, with path-style addresses where AWS_ENDPOINT_URL is set.

    Raises:
        InputError: AWS_ENDPOINT_URL is no address.
    """
    return _client(ATTEMPTS, READ_SECONDS, _environment())


def _environment() -> tuple[Any, ...]:
    """What a client depends on; connections do not survive a fork."""
    return os.getpid(), *sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))


@lru_cache(maxsize=4)
def _client(attempts: int, read_seconds: int, environment: tuple[Any, ...]) -> Any:
    import boto3
    from botocore.config import Config

    session = boto3.session.Session()
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=read_seconds,
        max_pool_connections=TRANSFERS,
        tcp_keepalive=True,
        retries={"mode": "adaptive", "total_max_attempts": attempts},
        s3={"addressing_style": "path"} if endpoint() else {},
    )
    region = session.region_name or os.environ.get("AWS_REGION") or "us-east-1"
    try:
        return session.client("s3", region_name=region, config=config)
    except ValueError as error:
        raise InputError(
            f"AWS_ENDPOINT_URL={endpoint()}: expected an address such as https://s3.example.org"
        ) from error


@lru_cache(maxsize=64)
def _answers(bucket: str, environment: tuple[Any, ...]) -> None:
    """Ask once, and not for long, whether there is an S3 server: transfers themselves try again many times."""
    from botocore.exceptions import ClientError

    with suppress(ClientError):
        _client(2, CONNECT_SECONDS, environment).head_bucket(Bucket=bucket)


@dataclass(frozen=True)
class Object:
    key: str
    size: int
    etag: str


@dataclass(frozen=True)
class Place:
    """A bucket and a key (without a slash at its end) in it; objects go by their names below the key, "" is itself."""

    location: str
    bucket: str
    key: str
    s3: Any = None

    @classmethod
    def named(cls, location: Location, s3: Any = None) -> "Place":
        """The place, with the client of another.

        Raises:
            InputError: no S3 address, or one without a bucket.
        """
        if not is_remote(location):
            raise InputError(f"{location}: expected s3://bucket/key")
        bucket, _, key = str(location).partition("://")[2].partition("/")
        if not bucket:
            raise InputError(f"{location} names no bucket: expected s3://bucket/key")
        return cls(str(location), bucket, key.strip("/"), s3)

    @classmethod
    def at(cls, location: Location) -> "Place":
        """The place, after a quick look whether its endpoint answers."""
        place = cls.named(location)
        with sentences(place.location, place.bucket, "read"):
            _answers(place.bucket, _environment())
            return cls(place.location, place.bucket, place.key, client())

    @property
    def name(self) -> str:
        return PurePosixPath(self.key).name or self.bucket

    def inside(self, name: str) -> str:
        """Key of the object `name`."""
        return f"{self.key}/{name}" if self.key and name else self.key or name

    def object(self, key: str) -> Object | None:
        """The object with exactly this key; its own comes first among the keys that begin with it."""
        first = next(self._listed(key, MaxKeys=1), None) if key else None
        return first if first is not None and first.key == key else None

    def below(self) -> dict[str, Object]:
        """The objects in the folder `key`, by their names in it.

        Raises:
            InputError: a name that would lead out of a local folder.
        """
        prefix = f"{self.key}/" if self.key else ""
        found = {item.key[len(prefix) :]: item for item in self._listed(prefix) if not item.key.endswith("/")}
        for name in found:
            if name.startswith("/") or ".." in PurePosixPath(name).parts or "\0" in name:
                raise InputError(f"{self.location} holds a key that cannot be a file name: rename // and .. in it")
        return found

    def _listed(self, prefix: str, **options: Any) -> Iterator[Object]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix, **options)
        for page in pages:
            if "Name" not in page:
                raise InputError(no_s3(self.location))
            for item in page.get("Contents", ()):
                yield Object(item["Key"], item["Size"], item["ETag"])

    def itself(self) -> dict[str, Object]:
        """The object `key` under the name "", empty when there is none."""
        found = self.object(self.key)
        return {"": found} if found else {}

    def find(self) -> dict[str, Object]:
        """The folder's objects, else the object itself."""
        return self.below() or self.itself()

    def metadata(self, objects: Mapping[str, Object]) -> dict[str, dict[str, str]]:
        """What we wrote beside each object; empty for an object of others."""

        def ask(item: tuple[str, Object]) -> tuple[str, dict[str, str]]:
            head = self.s3.head_object(Bucket=self.bucket, Key=item[1].key)
            given = {name.lower(): value for name, value in head["Metadata"].items()}
            return item[0], {name: given[name] for name in (SHA256, FILES_SHA256) if name in given}

        return dict(parallel(ask, objects.items()))

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects, one by one, which every S3 server can."""
        parallel(lambda name: self.s3.delete_object(Bucket=self.bucket, Key=self.inside(name)), names)


def parallel(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    with ThreadPoolExecutor(TRANSFERS) as pool:
        return list(pool.map(work, items))
