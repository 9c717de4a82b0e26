"""Directories that are either complete or absent, and the small JSON and Parquet helpers that artifacts share."""

import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hounsfield.errors import ArtifactError, InputError

MANIFEST = "manifest.json"


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """Yield a temporary directory that becomes `target` when the block ends without an error.

    An existing `target` is replaced when it is empty or one of our artifacts (it has a manifest); anything else is left
    alone. On an error the temporary directory is removed and `target` stays as it was.

    Raises:
        InputError: `target` cannot be written, or holds something that is not ours.
    """
    target = Path(target)
    check_replaceable(target)
    partial = target.parent / f".{target.name}.partial-{secrets.token_hex(4)}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
    except OSError as error:
        raise InputError(f"cannot write output {target}: {error.strerror}: choose a writable --out") from error
    try:
        yield partial
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def check_replaceable(target: Path) -> None:
    """Check that `target` is absent, empty or one of our artifacts, for work that takes long before it writes.

    Raises:
        InputError: it holds something that is not ours.
    """
    if target.exists() and not (target.is_dir() and (is_artifact(target) or not any(target.iterdir()))):
        raise InputError(f"output {target} already exists and is not an artifact of hounsfield: choose another --out")


def is_artifact(path: Path) -> bool:
    """Whether `path` is a complete series store, slice set, model or evaluation."""
    return (path / MANIFEST).is_file()


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys (same value, same bytes; NaN is refused)."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def write_manifest(directory: Path, kind: str, version: int, **fields: Any) -> None:
    """Write the manifest that marks `directory` as a complete artifact of `kind`. Call it last."""
    write_json(directory / MANIFEST, {"kind": kind, "version": version, **fields})


def read_manifest(directory: Path, kind: str | None = None, version: int | None = None) -> dict[str, Any]:
    """Read the manifest of an artifact.

    Raises:
        ArtifactError: there is none, or it is of another kind or version.
    """
    path = Path(directory) / MANIFEST
    if not path.is_file():
        raise ArtifactError(f"{directory} is not a complete {kind or 'artifact'}: it has no {MANIFEST}")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise ArtifactError(f"{path} is not JSON ({error}): make the {kind or 'artifact'} again") from error
    if kind is not None and manifest.get("kind") != kind:
        raise ArtifactError(f"{directory} is a {manifest.get('kind')}, expected a {kind}")
    if version is not None and manifest.get("version") != version:
        raise ArtifactError(
            f"{directory} is a {kind} of version {manifest.get('version')}, this code reads {version}: make it again"
        )
    return manifest


def sha256_bytes(*chunks: bytes | memoryview) -> str:
    """Hexadecimal SHA-256 of the chunks in order."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
