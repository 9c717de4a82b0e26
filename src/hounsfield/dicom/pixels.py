"""Stored pixels to Hounsfield units, slice by slice, straight into the rows of one int16 volume."""

import struct
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.encaps import generate_frames

from hounsfield.dicom.headers import SliceHeader
from hounsfield.dicom.parallel import batched_map
from hounsfield.dicom.reasons import Reason, UnusableError

AIR = -1024
_ITEM = 0xE000FFFE
_LOW, _HIGH = -(2**15), 2**15 - 1
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_RLE = "1.2.840.10008.1.2.5"
_JPEG = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 53, 55, 57, 70))
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_JPEG_2000 = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 201, 202, 203))

Flags = frozenset[str]


def read_volume(slices: Sequence[SliceHeader], pool: Executor) -> tuple[npt.NDArray[np.int16], Flags]:
    """Hounsfield units of equally sized slices, in their order.

    Returns:
        (slices, rows, columns) int16, and flags that apply to any slice: `padding` (padding pixels became -1024 HU),
        `lossy` (lossy compression), `clipped` (values beyond int16), `rounded` (fractional rescale).

    Raises:
        UnusableError: a slice is truncated, corrupt or in a format that cannot be decoded.
    """
    volume = np.empty((len(slices), slices[0].rows, slices[0].columns), dtype=np.int16)
    found = batched_map(pool, lambda k: read_slice(slices[k], volume[k]), range(len(slices)), 8)
    return volume, frozenset().union(*found)


def read_slice(header: SliceHeader, out: npt.NDArray[np.int16]) -> Flags:
    """Fill `out` (rows, columns) with the Hounsfield units of one slice; flags as in `read_volume`.

    Raises:
        UnusableError: as in `read_volume`.
    """
    try:
        with header.file.path.open("rb", buffering=0) as stream:
            if header.length >= 0 and header.bits_allocated == 16 and not header.syntax.is_encapsulated:
                _read_native(header, stream, out)
            else:
                _store(header, _decode(header, stream), out)
    except OSError as error:
        raise UnusableError(Reason.UNREADABLE, "a slice cannot be read") from error
    return _to_hu(header, out)


def _read_native(header: SliceHeader, stream: Any, out: npt.NDArray[np.int16]) -> None:
    stream.seek(header.offset)
    if header.length < out.nbytes or stream.readinto(out.data.cast("B")) != out.nbytes:
        raise UnusableError(Reason.UNREADABLE, "a slice is truncated: it has fewer pixels than rows times columns")
    if header.syntax == _BIG_ENDIAN:
        out.byteswap(inplace=True)


def _store(header: SliceHeader, pixels: npt.NDArray[Any], out: npt.NDArray[np.int16]) -> None:
    if pixels.size != out.size:
        raise UnusableError(Reason.UNREADABLE, "a slice is corrupt: its pixels are not rows times columns")
    out[...] = pixels.reshape(out.shape).astype(np.int16, casting="unsafe", copy=False)


def _decode(header: SliceHeader, stream: Any) -> npt.NDArray[Any]:
    unsigned = np.uint8 if header.bits_allocated == 8 else np.uint16
    try:
        if header.syntax.is_encapsulated:
            stream.seek(header.offset)
            data = stream.read()
            _require_whole_items(data)
            return _decompress(header, next(generate_frames(data, number_of_frames=1)), unsigned)
        if header.syntax.is_deflated:
            data = pydicom.dcmread(header.file.path, force=True).PixelData
        else:
            stream.seek(header.offset)
            data = stream.read(header.length)
        return np.frombuffer(data, unsigned, header.rows * header.columns)
    except UnusableError:
        raise
    except Exception as error:  # each codec raises its own type on corrupt bytes
        raise UnusableError(
            Reason.UNREADABLE, f"the pixels of a slice are truncated or corrupt ({header.syntax.name})"
        ) from error


def _require_whole_items(data: bytes) -> None:
    """Check that no item of encapsulated pixel data (PS3.5 A.4) is cut short: JPEG decoders fill up what is missing."""
    position = 0
    while position + 8 <= len(data):
        tag, length = struct.unpack_from("<II", data, position)
        if tag != _ITEM:
            return
        position += 8 + length
    if position != len(data):
        raise UnusableError(Reason.UNREADABLE, "a slice is truncated: its compressed pixels end early")


def _decompress(header: SliceHeader, frame: bytes, unsigned: npt.DTypeLike) -> npt.NDArray[Any]:
    import imagecodecs

    pixels: npt.NDArray[Any]
    syntax = header.syntax
    if syntax == _RLE:
        count = header.rows * header.columns
        segments = np.frombuffer(imagecodecs.dicomrle_decode(frame, np.dtype(unsigned).newbyteorder("<")), unsigned)
        pixels = segments[:count]
    elif syntax in _JPEG_LS:
        pixels = imagecodecs.jpegls_decode(frame)
    elif syntax in _JPEG_2000:
        pixels = imagecodecs.jpeg2k_decode(frame)
    elif syntax in _JPEG:
        pixels = imagecodecs.jpeg8_decode(frame)
    else:
        raise UnusableError(Reason.UNSUPPORTED_PIXELS, f"the compression {syntax.name} cannot be decoded")
    return pixels


def _to_hu(header: SliceHeader, out: npt.NDArray[np.int16]) -> Flags:
    """Turn stored bits into Hounsfield units in place (DICOM PS3.3 C.11.1, stored bits per PS3.5 8.1)."""
    flags = {"lossy"} if header.lossy else set()
    stored = out if header.signed else out.view(np.uint16)
    low, high = _stored_range(header, stored)
    padding = _padding_mask(header, stored) if header.padding is not None else None
    slope, intercept = header.slope, header.intercept
    ends = sorted((low * slope + intercept, high * slope + intercept))
    if slope == 1 and intercept.is_integer() and ends[0] >= _LOW and ends[1] <= _HIGH:
        if intercept:
            out.view(np.uint16)[...] += np.uint16(int(intercept) % 2**16)  # wraps, exact because the result fits
    else:
        out[...] = np.clip(np.rint(stored * slope + intercept), _LOW, _HIGH)
        if not (slope.is_integer() and intercept.is_integer()):
            flags.add("rounded")
    if padding is not None and padding.any():
        out[padding] = AIR
        flags.add("padding")
    if ends[0] < _LOW or ends[1] > _HIGH:
        flags.add("clipped")
    return frozenset(flags)


def _stored_range(header: SliceHeader, stored: npt.NDArray[Any]) -> tuple[int, int]:
    """Smallest and largest stored value, after overlay bits were cleared and the sign was extended in place."""
    low, high = int(stored.min()), int(stored.max())
    bits = header.bits_stored
    lowest, highest = (-(1 << bits - 1), (1 << bits - 1) - 1) if header.signed else (0, (1 << bits) - 1)
    if header.high_bit == bits - 1 and low >= lowest and high <= highest:
        return low, high
    unsigned = stored.view(np.uint16)
    unsigned <<= np.uint16(15 - header.high_bit)
    stored >>= stored.dtype.type(16 - bits)
    return int(stored.min()), int(stored.max())


def _padding_mask(header: SliceHeader, stored: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    first, last = (
        np.array(value).astype(np.int64).astype(stored.dtype)
        for value in (header.padding, header.padding if header.padding_limit is None else header.padding_limit)
    )
    inside: npt.NDArray[np.bool_] = (stored >= min(first, last)) & (stored <= max(first, last))
    return inside
