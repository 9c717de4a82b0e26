"""Whether a NIfTI file is complete: ITK fills up a truncated one in silence."""

import gzip
import struct
import zlib
from io import BufferedIOBase
from math import prod
from pathlib import Path

from hounsfield.dicom.reasons import Reason, UnusableError

_CHUNK = 1 << 20


def require_complete_nifti(path: Path) -> None:
    """Read a .nii or .nii.gz through and compare its length with what its header announces.

    Raises:
        UnusableError: it is truncated, its compression is corrupt, or it is no NIfTI.
    """
    try:
        with path.open("rb") as raw:
            if raw.read(2) == b"\x1f\x8b":
                raw.seek(0)
                with gzip.GzipFile(fileobj=raw) as stream:
                    complete = _length(stream, _announced(stream))
            else:
                raw.seek(0)
                complete = path.stat().st_size >= _announced(raw)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise UnusableError(Reason.UNREADABLE, "the NIfTI file is truncated or corrupt") from error
    if not complete:
        raise UnusableError(Reason.UNREADABLE, "the NIfTI file is truncated: it has fewer voxels than its header says")


def _length(stream: BufferedIOBase | gzip.GzipFile, announced: int) -> bool:
    """Whether a stream is at least `announced` bytes long; it is read to its end, which verifies its checksum."""
    length = stream.tell()
    while chunk := stream.read(_CHUNK):
        length += len(chunk)
    return length >= announced


def _announced(stream: BufferedIOBase | gzip.GzipFile) -> int:
    """Bytes of header and voxels by a NIfTI-1 or NIfTI-2 header (nifti.nimh.nih.gov), in either byte order."""
    header = stream.read(540)
    for order in "<>":
        size = struct.unpack_from(f"{order}i", header)[0]
        if size == 348:
            dim, bits = struct.unpack_from(f"{order}8h", header, 40), struct.unpack_from(f"{order}h", header, 72)[0]
            offset = struct.unpack_from(f"{order}f", header, 108)[0]
        elif size == 540:
            dim, bits = struct.unpack_from(f"{order}8q", header, 16), struct.unpack_from(f"{order}h", header, 14)[0]
            offset = struct.unpack_from(f"{order}q", header, 168)[0]
        else:
            continue
        if not 1 <= dim[0] <= 7 or not 0 <= offset < 2**40:
            break
        length: int = int(offset) + prod(dim[1 : 1 + dim[0]]) * bits // 8
        return length
    raise UnusableError(Reason.UNREADABLE, "the file is named NIfTI, but has no NIfTI header")
