"""A version of the data: equal as long as nothing changed, so that a cache may serve what was made of it."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from hounsfield.components.data_version.config import Config
from hounsfield.dicom.cases import read_cases
from hounsfield.dicom.sources import walk
from hounsfield.errors import InputError
from hounsfield.remote import Location, download, fingerprint, is_remote


def run(config: Config, data: list[str], cases: str) -> str:
    """Print and return the version of what `data`, or else the rows of the cases file `cases`, name.

    Raises:
        InputError: both or none of them are given, or a place does not exist or cannot be read.
    """
    if bool(data) == bool(cases):
        raise InputError("give either --data (folders or s3:// prefixes) or --cases (a CSV file)")
    version = version_of(data, cases, config.given)
    print(f"data_version={version}", flush=True)
    return version


def version_of(data: Sequence[Location], cases: Location = "", given: str = "") -> str:
    """Hash, 16 hexadecimal digits, of `given` and the names, sizes and times of all files.

    On S3 it is keys, sizes and entity tags. No file's content is read but that of the cases file.

    Raises:
        InputError: a place does not exist or cannot be read.
    """
    digest = hashlib.sha256(given.encode())
    for place in [*data, *(named_by(cases) if cases else [])]:
        digest.update(f"\0{place}\0{state(place)}".encode())
    return digest.hexdigest()[:16]


def named_by(cases: Location) -> list[Location]:
    """The cases file and every image and label that its rows name.

    Raises:
        InputError: the file, or a local file that it names, does not exist or fit.
    """
    places: list[Location] = []
    with TemporaryDirectory(prefix="hounsfield-s3-") as folder:
        copy = Path(folder) / "cases.csv"

        def local(place: Location) -> Path:
            if is_remote(place) and not places:
                download(str(place), copy)
            places.append(place)
            return copy if is_remote(place) else Path(place)  # of what rows name only the presence is looked at

        read_cases(cases, local)
    return places


def state(place: Location) -> str:
    """What changes when a file at or below `place` does.

    Raises:
        InputError: it does not exist or cannot be read.
    """
    if is_remote(place):
        return fingerprint(place)
    digest = hashlib.sha256()
    for file in walk(Path(place).expanduser()):
        stat = file.path.stat()
        digest.update(f"{file.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
