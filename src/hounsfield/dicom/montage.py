"""Pictures of a store: a montage per series, and the page that shows them with counts and reasons."""

import base64
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from hounsfield.data.series_store import SeriesRow, SeriesStoreWriter, dataset_hash
from hounsfield.dicom.reasons import MEANING, Reason

TILE = 144
TILES = 8
MAX_PICTURES = 300
_LOWER, _UPPER = -125.0, 225.0
_OUTLINE = (255, 64, 48)
_GAP = 3
_AT_ONCE = 2


def montage(
    hu: npt.NDArray[np.int16], mask: npt.NDArray[np.uint8] | None, spacing: tuple[float, float, float]
) -> bytes:
    """JPEG of evenly spaced slices in the mediastinal window, label outlined; the last tile cuts the label's centre."""
    chosen = np.linspace(0, len(hu) - 1, min(TILES, len(hu))).round().astype(int).tolist()
    if mask is not None and mask.any():
        chosen.append(int(mask.sum(axis=(1, 2), dtype=np.int64).argmax()))
    tiles = [_tile(hu[k], None if mask is None else mask[k], spacing[1] / spacing[2]) for k in chosen]
    gap = np.full((TILE, _GAP, 3), 255, np.uint8)
    return _jpeg(np.concatenate([part for tile in tiles for part in (gap, tile)][1:], axis=1))


def _tile(hu: npt.NDArray[np.int16], mask: npt.NDArray[np.uint8] | None, aspect: float) -> npt.NDArray[np.uint8]:
    from PIL import Image

    rows, columns = hu.shape
    scale = TILE / max(rows * aspect, columns)
    size = max(1, round(columns * scale)), max(1, round(rows * aspect * scale))
    grey = ((np.clip(hu, _LOWER, _UPPER) - _LOWER) * (255 / (_UPPER - _LOWER))).astype(np.uint8)
    small = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BOX))
    tile = np.zeros((TILE, TILE, 3), np.uint8)
    colour = np.repeat(small[:, :, None], 3, axis=2)
    if mask is not None and mask.any():
        inside = np.asarray(Image.fromarray(mask * np.uint8(255)).resize(size, Image.Resampling.BOX)) >= 96
        padded = np.pad(inside, 1)
        core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        colour[inside & ~core] = _OUTLINE
    top, left = (TILE - size[1]) // 2, (TILE - size[0]) // 2
    tile[top : top + size[1], left : left + size[0]] = colour
    return tile


def _jpeg(pixels: npt.NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=82)
    return buffer.getvalue()


def write_page(writer: SeriesStoreWriter) -> None:
    """Write index.html: counts, one row and montage per series, and what was not used, by reason.

    The voxels of all series must lie in the store already.
    """
    from jinja2 import Environment, PackageLoader

    def picture(row: SeriesRow) -> str:
        hu, mask = writer.volume(row)
        return base64.b64encode(montage(hu, mask, row.spacing)).decode()

    environment = Environment(loader=PackageLoader("hounsfield.dicom", "."), autoescape=True, trim_blocks=True)
    series = sorted(writer.series, key=lambda row: (row.patient, row.key))
    shown = series[:MAX_PICTURES]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        pictures = dict(zip((row.key for row in shown), pool.map(picture, shown), strict=True))
    page = environment.get_template("index.html.j2").render(
        series=series,
        patients=len({row.patient for row in series}),
        labelled=sum(row.label_voxels > 0 for row in series),
        slices=sum(row.slices for row in series),
        dataset_hash=dataset_hash(series),
        pictures=pictures,
        max_pictures=MAX_PICTURES,
        reasons=_reasons(writer),
    )
    (writer.directory / "index.html").write_text(page)


def _reasons(writer: SeriesStoreWriter) -> list[dict[str, Any]]:
    counts: Counter[str] = writer.rejections()
    sentences = {name: sorted({row.sentence for row in writer.rejected if row.reason == name}) for name in counts}
    return [
        {"code": name, "files": count, "meaning": MEANING[Reason(name)], "sentences": sentences[name][:5]}
        for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
