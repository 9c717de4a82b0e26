"""Folders and `s3://bucket/prefix` addresses to the list of files to look at."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from hounsfield.dicom.headers import InputFile
from hounsfield.errors import InputError
from hounsfield.progress import track

S3 = "s3://"
_DOWNLOADS = 16


@contextmanager
def input_files(data: Sequence[str], exclude: Path | None = None) -> Iterator[list[InputFile]]:
    """Every file under the given folders, files and S3 prefixes; downloads are removed when the block ends.

    Names are relative to the folder or prefix and begin with its number in `data`.
    Files below `exclude` (an output inside the input) are left out.

    Raises:
        InputError: a folder or bucket does not exist, cannot be read or holds no file.
    """
    with ExitStack() as stack:
        files: list[InputFile] = []
        for number, source in enumerate(data):
            if source.startswith(S3):
                folder = Path(stack.enter_context(TemporaryDirectory(prefix="hounsfield-s3-")))
                download(source, folder)
            else:
                folder = Path(source).expanduser()
            found = walk(folder, exclude, prefix=str(number))
            if not found:
                raise InputError(f"{source} holds no file: give a folder or s3:// prefix with DICOM files")
            files += found
        yield files


def walk(root: Path, exclude: Path | None = None, prefix: str = "") -> list[InputFile]:
    """All files below `root` (or `root` itself), sorted by name relative to it, names preceded by `prefix`.

    Raises:
        InputError: `root` does not exist or a folder in it cannot be read.
    """
    if root.is_file():
        return [InputFile(root, str(PurePosixPath(prefix, root.name)))]
    if not root.is_dir():
        raise InputError(f"{root} does not exist: give a folder or file that can be read")

    def refuse(error: OSError) -> None:
        raise InputError(f"a folder under {root} cannot be read ({error.strerror})") from error

    skip = exclude.resolve() if exclude is not None else None
    files = []
    for folder, subfolders, names in os.walk(root, onerror=refuse):
        subfolders[:] = [name for name in subfolders if (Path(folder) / name).resolve() != skip]
        for name in names:
            path = Path(folder) / name
            if path.is_file():
                files.append(InputFile(path, str(PurePosixPath(prefix, path.relative_to(root).as_posix()))))
    return sorted(files, key=lambda file: file.name)


def download(address: str, folder: Path) -> None:
    """Copy every object under `s3://bucket/prefix` into `folder`, in parallel.

    The endpoint, region and credentials are those of the environment (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...).

    Raises:
        InputError: the bucket does not exist, cannot be reached or refuses the credentials.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, prefix = address.removeprefix(S3).partition("/")
    if not bucket:
        raise InputError(f"{address} names no bucket: expected s3://bucket/prefix")
    config = Config(
        max_pool_connections=_DOWNLOADS,
        connect_timeout=10,
        retries={"max_attempts": 3},
        s3={"addressing_style": "path"} if os.environ.get("AWS_ENDPOINT_URL") else {},
    )
    try:
        client = boto3.session.Session().client("s3", config=config)
        keys = [key for key in _keys(client, bucket, prefix) if _inside(key, prefix)]

        def fetch(key: str) -> None:
            target = folder / _relative(key, prefix)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                client.download_fileobj(bucket, key, file)

        with ThreadPoolExecutor(_DOWNLOADS) as pool:
            for _ in track(pool.map(fetch, keys), "download", len(keys)):
                pass
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "error")
        raise InputError(
            f"{S3}{bucket} cannot be read ({code}): check the bucket's name and the credentials"
        ) from error
    except (BotoCoreError, OSError) as error:
        raise InputError(
            f"{S3}{bucket} cannot be read ({type(error).__name__}): check AWS_ENDPOINT_URL, credentials and region"
        ) from error


def _keys(client: Any, bucket: str, prefix: str) -> Iterator[str]:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", ()):
            if not item["Key"].endswith("/"):
                yield item["Key"]


def _relative(key: str, prefix: str) -> str:
    """Name of an object below the folder that `prefix` names (or shares its name with the object)."""
    return key[len(prefix) :].lstrip("/") or PurePosixPath(key).name


def _inside(key: str, prefix: str) -> bool:
    """Whether the object lies in the folder `prefix` and its name cannot lead out of the download folder."""
    rest = key[len(prefix) :]
    in_folder = not prefix or prefix.endswith("/") or not rest or rest.startswith("/")
    return in_folder and ".." not in PurePosixPath(key).parts
