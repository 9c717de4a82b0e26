"""The cases file: which image goes with which label, one case a row."""

import csv
import posixpath
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from hounsfield.errors import InputError
from hounsfield.remote import Location, is_remote

COLUMNS = ("image", "label", "label_value", "patient", "split", "roi")
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class CaseRow:
    """One row; paths are resolved against the place of the cases file, `image_name` is the text of the row."""

    line: int
    image: Path
    image_name: str
    label: Path | None
    label_name: str
    label_value: int | None
    patient: str
    split: str
    roi: str | None


def read_cases(
    path: Location, local: Callable[[Location], Path] = Path, lines: Collection[int] | None = None
) -> list[CaseRow]:
    """Rows of a CSV file with the columns image, and optionally label, label_value, patient, split and roi.

    Args:
        path: the file; with `local`, it and what it names may be on S3.
        local: local path of a file or folder that may be on S3.
        lines: only the rows in these lines; the files that the others name are not looked for.

    Raises:
        InputError: names file and line of an unknown column or value, or of a file that does not exist.
    """
    try:
        text = local(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the cases file {path} cannot be read: give a CSV file in UTF-8") from error
    reader = csv.DictReader(text.splitlines(), skipinitialspace=True)
    columns = [name.strip() for name in reader.fieldnames or ()]
    unknown = [name for name in columns if name not in COLUMNS]
    if "image" not in columns or unknown or len(set(columns)) != len(columns):
        came = ", ".join(columns) or "nothing"
        raise InputError(f"{path}, line 1: expected the columns {', '.join(COLUMNS)} (image is required), came {came}")
    reader.fieldnames = columns
    rows = [
        _row(path, reader.line_num, values, local if lines is None or reader.line_num in lines else lambda _: Path())
        for values in reader
    ]
    if not rows:
        raise InputError(f"{path} has no case: expected one row per image below the header")
    _require_one_split(path, rows)
    return [row for row in rows if lines is None or row.line in lines]


def _require_one_split(path: Location, rows: list[CaseRow]) -> None:
    first: dict[str, CaseRow] = {}
    for row in rows:
        other = first.setdefault(row.patient, row) if row.patient else row
        if other.split != row.split:
            raise InputError(
                f"{path}, line {row.line}: split {row.split!r} differs from {other.split!r} of the same patient in "
                f"line {other.line}: a patient belongs to one split"
            )


def _row(path: Location, line: int, values: dict[str | None, str | None], local: Callable[[Location], Path]) -> CaseRow:
    where = f"{path}, line {line}"
    if None in values:
        raise InputError(f"{where}: more values than columns")
    cell = {str(name): (value or "").strip() for name, value in values.items()}
    value = cell.get("label_value", "")
    if value and not (value.isascii() and value.isdigit() and int(value) > 0):
        raise InputError(f"{where}: label_value {value!r} is not a whole number above 0")
    split = cell.get("split", "")
    if split and split not in SPLITS:
        raise InputError(f"{where}: split {split!r} is not one of {', '.join(SPLITS)}")
    image, label = cell["image"], cell.get("label", "")
    if not image:
        raise InputError(f"{where}: the image is empty")
    return CaseRow(
        line=line,
        image=_existing(where, "image", image, local(_beside(path, image))),
        image_name=image,
        label=_existing(where, "label", label, local(_beside(path, label))) if label else None,
        label_name=label,
        label_value=int(value) if value else None,
        patient=cell.get("patient", ""),
        split=split,
        roi=cell.get("roi") or None,
    )


def _beside(cases: Location, text: str) -> Location:
    """The place that `text` names, seen from the cases file."""
    if is_remote(text):
        return text
    if not is_remote(cases):
        return Path(cases).parent / Path(text).expanduser()
    scheme, _, key = str(cases).partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(posixpath.dirname(key), text))}"


def _existing(where: str, what: str, text: str, target: Path) -> Path:
    if not target.exists():
        raise InputError(f"{where}: the {what} {text} does not exist (paths are relative to the cases file)")
    return target
