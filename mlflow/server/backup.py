#!/usr/bin/env python3
"""Saves the registry of an MLflow server (PostgreSQL and S3) to a folder, and restores it into an empty one.

The environment is the server's own: MLFLOW_BACKEND_STORE_URI, MLFLOW_ARTIFACTS_DESTINATION (s3://BUCKET/PREFIX),
AWS_ENDPOINT_URL and the AWS credentials. The server may run while it is saved: the database is saved first, so that
every object it names is there to be copied. The folder is complete or absent; its manifest holds a SHA-256 per object.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import boto3
import psycopg
from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError
from up import ServiceError, program

DUMP, OBJECTS, MANIFEST = "registry.dump", "objects", "manifest.json"
AT_ONCE = 8


def main() -> int:
    """`save FOLDER` or `restore FOLDER`; failures are one sentence and exit code 1."""
    parser = argparse.ArgumentParser(prog="backup.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("action", choices=["save", "restore"])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    try:
        print((save if arguments.action == "save" else restore)(arguments.folder))
    except (ServiceError, OSError, Boto3Error, BotoCoreError, ClientError, psycopg.Error) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def save(folder: Path) -> str:
    """Save database and objects to `folder`, which must not be there yet.

    Raises:
        ServiceError: `folder` exists, a setting is missing, or pg_dump failed.
    """
    database, (bucket, prefix) = database_url(), destination()
    if folder.exists():
        raise ServiceError(f"{folder} is there already: choose a new folder")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / OBJECTS).mkdir(parents=True)
    postgresql("pg_dump", database, "--format=custom", "--no-owner", f"--file={partial / DUMP}")
    s3 = boto3.client("s3")
    keys = keys_below(s3, bucket, prefix)

    def copy(key: str) -> str:
        target = inside(partial / OBJECTS, key.removeprefix(prefix))
        target.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(bucket, key, str(target))
        return sha256(target)

    hashes = dict(zip((key.removeprefix(prefix) for key in keys), at_once(copy, keys), strict=True))
    manifest = {"kind": "mlflow-backup", "version": 1, "dump": sha256(partial / DUMP), "objects": hashes}
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    partial.rename(folder)
    return f"saved database and {len(hashes)} objects to {folder}"


def restore(folder: Path) -> str:
    """Restore `folder` into an empty database and an empty prefix; objects first, then the database in one transaction.

    Raises:
        ServiceError: `folder` is not complete or was changed, the database or the prefix is not empty, or pg_restore
            failed.
    """
    database, (bucket, prefix) = database_url(), destination()
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except OSError as error:
        raise ServiceError(f"{folder} is not a complete backup: it has no {MANIFEST}") from error
    wanted = {folder / DUMP: manifest["dump"]}
    wanted |= {inside(folder / OBJECTS, name): digest for name, digest in manifest["objects"].items()}
    for path, digest in wanted.items():
        if not path.is_file() or sha256(path) != digest:
            raise ServiceError(f"{path} is missing or was changed after it was saved: take another backup")
    with psycopg.connect(plain(database)) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    if tables != (0,):
        raise ServiceError(
            f"the database {database.database} is not empty: restore into a new one, before the server's first start"
        )
    s3 = boto3.client("s3")
    if keys_below(s3, bucket, prefix, 1):
        raise ServiceError(f"s3://{bucket}/{prefix} is not empty: restore into an empty MLFLOW_ARTIFACTS_DESTINATION")
    names = list(manifest["objects"])
    at_once(lambda name: s3.upload_file(str(inside(folder / OBJECTS, name)), bucket, f"{prefix}{name}"), names)
    postgresql("pg_restore", database, "--single-transaction", "--exit-on-error", "--no-owner", str(folder / DUMP))
    return f"restored database and {len(names)} objects from {folder}"


def database_url() -> URL:
    """The server's database.

    Raises:
        ServiceError: MLFLOW_BACKEND_STORE_URI is missing or not a PostgreSQL URI.
    """
    try:
        url = make_url(os.environ.get("MLFLOW_BACKEND_STORE_URI", ""))
    except ArgumentError:
        url = URL.create("none")
    if url.get_backend_name() != "postgresql":
        raise ServiceError(
            "MLFLOW_BACKEND_STORE_URI: expected the server's postgresql+psycopg://USER:PASSWORD@HOST/NAME"
        )
    return url


def plain(url: URL) -> str:
    """`url` as PostgreSQL's own programs read it."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def destination() -> tuple[str, str]:
    """Bucket and prefix (empty or ending with a slash) of the server's artifacts.

    Raises:
        ServiceError: MLFLOW_ARTIFACTS_DESTINATION is not an s3:// location.
    """
    text = os.environ.get("MLFLOW_ARTIFACTS_DESTINATION", "")
    parts = urlparse(text)
    if parts.scheme != "s3" or not parts.netloc:
        raise ServiceError(f"MLFLOW_ARTIFACTS_DESTINATION: expected s3://BUCKET/PREFIX, came {text!r}")
    prefix = parts.path.strip("/")
    return parts.netloc, f"{prefix}/" if prefix else ""


def postgresql(name: str, database: URL, *arguments: str) -> None:
    """Run pg_dump or pg_restore on `database`; the password stays out of the list of processes.

    Raises:
        ServiceError: it failed; the message is its own.
    """
    environment = os.environ | {"PGPASSWORD": database.password or ""}
    address = plain(URL.create(database.drivername, database.username, None, *database[3:]))
    done = subprocess.run(
        [program(name), f"--dbname={address}", *arguments], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise ServiceError(f"{name} failed: {done.stderr.strip()}")


def keys_below(s3: Any, bucket: str, prefix: str, limit: int = 0) -> list[str]:
    """Keys below `prefix`, at most `limit` when that is not 0."""
    found: list[str] = []
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        found += [item["Key"] for item in page.get("Contents", []) if not item["Key"].endswith("/")]
        if limit and len(found) >= limit:
            return found[:limit]
    return found


def inside(root: Path, name: str) -> Path:
    """`root/name`.

    Raises:
        ServiceError: the name leads out of `root`.
    """
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise ServiceError(f"the object {name} leads out of the folder of the backup")
    return path


def at_once(work: Callable[[str], Any], names: Iterable[str]) -> list[Any]:
    """`work` of every name, a few at once, in order."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(work, names))


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
