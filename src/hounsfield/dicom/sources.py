"""Folders, cases files and `s3://bucket/prefix` addresses to the files to look at.

Originals from S3 hold names of patients: they lie in the temporary directory for as long as they are read.
"""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from hounsfield.dicom.cases import CaseRow, read_cases
from hounsfield.dicom.headers import InputFile
from hounsfield.errors import InputError
from hounsfield.remote import Location, download, is_remote, listed

_DOWNLOADED = "hounsfield-s3-"


@contextmanager
def input_files(
    data: Sequence[str], exclude: Path | None = None, wanted: Callable[[str], bool] | None = None
) -> Iterator[list[InputFile]]:
    """Every file under the given folders, files and S3 prefixes; downloads are removed when the block ends.

    Names are relative to the folder or prefix and begin with its number in `data`.
    Files below `exclude` (an output inside the input) are left out, and those whose names are not `wanted`.

    Raises:
        InputError: a folder or bucket does not exist, cannot be read or (without `wanted`) holds no file.
    """
    want = wanted or (lambda name: True)
    with ExitStack() as stack:
        files: list[InputFile] = []
        for number, source in enumerate(data):
            if is_remote(source):
                folder = Path(stack.enter_context(TemporaryDirectory(prefix=_DOWNLOADED)))
                folder /= PurePosixPath(source).name
                count = download(source, folder, _below(number, source, want))
                found = walk(folder, prefix=str(number)) if count else []
            else:
                found = [file for file in walk(Path(source).expanduser(), exclude, str(number)) if want(file.name)]
            if not found and wanted is None:
                raise InputError(f"{source} holds no file: give a folder or s3:// prefix with DICOM files")
            files += found
        yield files


def remote_names(data: Sequence[str]) -> list[str]:
    """The names that `input_files` gives to the files under S3 prefixes, from their listing.

    Raises:
        InputError: a bucket does not exist or cannot be read.
    """
    prefixes = [(number, source) for number, source in enumerate(data) if is_remote(source)]
    return [_named(number, source, name) for number, source in prefixes for name in listed(source)]


def local_files(data: Sequence[str]) -> list[InputFile]:
    """What `input_files` finds in the folders of `data`, without the S3 prefixes.

    Raises:
        InputError: a folder does not exist or cannot be read.
    """
    folders = [(number, source) for number, source in enumerate(data) if not is_remote(source)]
    return [file for number, source in folders for file in walk(Path(source).expanduser(), prefix=str(number))]


def _below(number: int, source: str, wanted: Callable[[str], bool]) -> Callable[[str], bool]:
    """`wanted` for names below `source` instead of whole ones."""
    return lambda name: wanted(_named(number, source, name))


def _named(number: int, source: str, name: str) -> str:
    return str(PurePosixPath(str(number), name or PurePosixPath(source).name))


@contextmanager
def case_rows(cases: str, lines: Collection[int] | None = None) -> Iterator[list[CaseRow]]:
    """Rows of the cases file `cases`, or those in `lines`; downloads are removed when the block ends.

    Raises:
        InputError: as `read_cases`, or S3 cannot be reached or refuses.
    """
    with TemporaryDirectory(prefix=_DOWNLOADED) as folder:
        fetched: dict[str, Path] = {}

        def local(location: Location) -> Path:
            if not is_remote(location):
                return Path(location)
            address = str(location)
            if address not in fetched:
                fetched[address] = Path(folder) / str(len(fetched)) / PurePosixPath(address).name
                download(address, fetched[address])
            return fetched[address]

        yield read_cases(cases, local, lines)


def listed_rows(cases: str) -> list[CaseRow]:
    """All rows of the cases file `cases`, without looking for what of theirs is on S3.

    Raises:
        InputError: as `read_cases`, or S3 cannot be reached or refuses.
    """
    with TemporaryDirectory(prefix=_DOWNLOADED) as folder:

        def local(location: Location) -> Path:
            if not is_remote(location):
                return Path(location)
            if location != cases:
                return Path(folder) / "cases.csv"
            download(location, Path(folder) / "cases.csv")
            return Path(folder) / "cases.csv"

        return read_cases(cases, local)


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
