"""Where the checkpoints of a training lie: a folder, or an s3:// prefix with a folder here as its working copy."""

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from hounsfield import __version__, remote
from hounsfield.data.slice_set import SliceSet
from hounsfield.errors import InputError
from hounsfield.storage import sha256_bytes

LAST = "last.ckpt"
PRECISION = "precision.json"


@dataclass(frozen=True)
class Checkpoints:
    """Files of one training in `folder`; with `remote`, an s3:// prefix, every file kept is copied there."""

    folder: Path
    remote: str = ""

    @classmethod
    def of(cls, root: str | Path, identity: dict[str, Any], slices: SliceSet) -> Self:
        """Those under `root` of the training with this configuration `identity`, slice set and code."""
        what = {"identity": identity, "slice_set": slices.manifest["hash"], "code": __version__}
        key = sha256_bytes(json.dumps(what, sort_keys=True).encode())[:16]
        if remote.is_remote(root):
            return cls(Path(tempfile.gettempdir()) / "hounsfield-checkpoints" / key, f"{str(root).rstrip('/')}/{key}")
        return cls(Path(root) / key)

    @property
    def last(self) -> Path:
        """The newest checkpoint, absent before the first."""
        return self.folder / LAST

    def open(self) -> None:
        """Make the folder, and bring what an earlier process kept remotely.

        Raises:
            InputError: a folder or a remote that cannot be read and written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot write checkpoints to {self.folder.parent}: {error.strerror}: choose a writable folder"
            ) from error
        if self.remote:
            remote.check_writable(self.remote)
        for name in (LAST, PRECISION):
            if self.remote and remote.exists(f"{self.remote}/{name}"):
                remote.download(f"{self.remote}/{name}", self.folder / name)

    def read(self) -> dict[str, Any] | None:
        """The newest checkpoint's state, None before the first."""
        if not self.last.is_file():
            return None
        state: dict[str, Any] = torch.load(self.last, map_location="cpu", weights_only=True)
        return state

    def keep(self, name: str) -> None:
        """Copy file `name` of the folder to the remote, if there is one; a failure is but a warning."""
        if not self.remote:
            return
        try:
            remote.upload(self.folder / name, f"{self.remote}/{name}")
        except InputError as error:
            print(f"warning: a checkpoint stays on this machine alone: {error}", flush=True)

    def discard(self) -> None:
        """Remove all of it, once the model is stored."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.remote:
            remote.remove(self.remote)
        root = self.folder.parent
        if root.is_dir() and not any(root.iterdir()):
            root.rmdir()


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint `path` atomically.

    Raises:
        InputError: it cannot be written.
    """
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise InputError(f"cannot write checkpoint {path}: {error.strerror}: free space or choose another") from error
