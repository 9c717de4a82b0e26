"""`hounsfield inspect`: what an artifact holds, as JSON or as tables."""

import json
import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hounsfield.components.summarise_experiment import run as summarise
from hounsfield.data import comparison, evaluation, model_store, series_store, slice_set
from hounsfield.data.splits import SPLITS
from hounsfield.errors import ArtifactError
from hounsfield.progress import reported_to
from hounsfield.remote import Location, fetch
from hounsfield.search import result
from hounsfield.storage import read_manifest

WIDTH_OF_FILES = 160
LEFT = (series_store.volume_name("*"), slice_set.IMAGES, model_store.WEIGHTS, "*.html")
"""Files of a remote artifact that are not looked at."""
Described = dict[str, Any]


def inspect(location: Location, as_json: bool) -> None:
    """Print the artifact at `location`; of a remote one without the pixels and weights.

    Raises:
        ArtifactError: `location` is not a complete artifact of a known kind and version.
        InputError: a remote location cannot be reached or refuses.
    """
    with reported_to(lambda line: None) if as_json else nullcontext():
        path = fetch(location, lambda name: not any(fnmatch(name, pattern) for pattern in LEFT))
    if not path.exists():
        raise ArtifactError(f"{location} does not exist: give the folder of {', '.join(KINDS)}")
    kind = read_manifest(path).get("kind")
    if kind not in KINDS:
        raise ArtifactError(f"{location} is a {kind}, expected {', '.join(KINDS)}")
    describe, show = KINDS[kind]
    described = describe(path)
    if as_json:
        print(json.dumps(described, indent=2))
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_OF_FILES)
    for table in show(described):
        console.print(table)


def describe_series_store(path: Path) -> Described:
    """Every series with shape [slices, rows, columns] and spacing [slice, row, column] in mm; files not used."""
    store = series_store.SeriesStore(path)
    return {
        "kind": series_store.KIND,
        "dataset_hash": store.dataset_hash,
        "series": [
            {
                "key": row.key,
                "shape": list(row.shape),
                "spacing": list(row.spacing),
                "label_voxels": row.label_voxels,
                "label_slices": None if row.label_first is None else [row.label_first, row.label_last],
                "flags": row.flags,
            }
            for row in store.series
        ],
        "rejected": [{"reason": reason, "count": count} for reason, count in store.manifest["rejected"].items()],
    }


def show_series_store(described: Described) -> Iterable[Table]:
    names = ("series", "slices x rows x columns", "spacing in mm", "label voxels", "label slices", "flags")
    series = described["series"]
    rows = (
        (
            row["key"],
            " x ".join(map(str, row["shape"])),
            " x ".join(f"{length:.4g}" for length in row["spacing"]),
            row["label_voxels"],
            "" if row["label_slices"] is None else "{} to {}".format(*row["label_slices"]),
            ", ".join(row["flags"]),
        )
        for row in series
    )
    yield table(f"series store, {len(series)} series, data set {described['dataset_hash'][:16]}", names, rows)
    if described["rejected"]:
        rejected = ((row["reason"], row["count"]) for row in described["rejected"])
        yield table("not used", ("reason", "files"), rejected)


def describe_slice_set(path: Path) -> Described:
    """Window, size [rows, columns] and, by split, patients, series, slices, positive slices and positive pixels."""
    slices = slice_set.SliceSet(path)
    splits = {}
    for split in SPLITS:
        rows = [row for row in slices.index if row.split == split]
        splits[split] = {
            "patients": len({row.patient for row in rows}),
            "series": len({row.series for row in rows}),
            "slices": len(rows),
            "positive_slices": sum(row.positive for row in rows),
            "label_pixels": sum(row.label_pixels for row in rows),
        }
    return {
        "kind": slice_set.KIND,
        "task": slices.task,
        "window": slices.window.to_dict(),
        "size": list(slices.shape),
        "dataset_hash": slices.dataset_hash,
        "hash": slices.manifest["hash"],
        "splits": splits,
    }


def show_slice_set(described: Described) -> Iterable[Table]:
    yield settings(described, "slice set", omit=("splits",))
    splits = described["splits"]
    names = list(next(iter(splits.values()), {}))
    rows = ((split, *counts.values()) for split, counts in splits.items())
    yield table("", ("split", *(name.replace("_", " ") for name in names)), rows)


def describe_model(path: Path) -> Described:
    """The model card and the number of epochs trained."""
    card = model_store.read_card(path).model_dump()
    return {"kind": model_store.KIND, **card, "epochs": len(model_store.read_history(path))}


def describe_evaluation(path: Path) -> Described:
    """Every figure of the evaluation."""
    return {"kind": evaluation.KIND, **evaluation.read_metrics(path)}


def describe_tuning(path: Path) -> Described:
    """The best parameters, and how the search went."""
    return {"kind": result.KIND, **json.loads((path / result.BEST).read_text())}


def describe_comparison(path: Path) -> Described:
    """Both models' figures on the same patients, and the verdict."""
    return {"kind": comparison.KIND, **comparison.read_comparison(path).model_dump()}


def describe_experiment(path: Path) -> Described:
    """Every figure of the experiment."""
    return {"kind": summarise.KIND, **json.loads((path / summarise.SUMMARY).read_text())}


def show_experiment(described: Described) -> Iterable[Table]:
    plain = {name: value for name, value in described.items() if not isinstance(value, dict | list)}
    yield settings(plain, "experiment")
    claims = described["claims"]
    rows = ((claim["claim"], claim["holds"], claim["seeds_holding"], claim["seeds_judged"]) for claim in claims)
    yield table("", ("claim of the paper", "holds here", "seeds holding", "seeds judged"), rows)


def show_settings(described: Described) -> Iterable[Table]:
    yield settings(described, str(described["kind"]))


KINDS: dict[str, tuple[Callable[[Path], Described], Callable[[Described], Iterable[Table]]]] = {
    series_store.KIND: (describe_series_store, show_series_store),
    slice_set.KIND: (describe_slice_set, show_slice_set),
    model_store.KIND: (describe_model, show_settings),
    evaluation.KIND: (describe_evaluation, show_settings),
    result.KIND: (describe_tuning, show_settings),
    comparison.KIND: (describe_comparison, show_settings),
    summarise.KIND: (describe_experiment, show_experiment),
}


def settings(described: Described, title: str, omit: tuple[str, ...] = ()) -> Table:
    """Names and values; the members of a dictionary follow its name, indented."""
    rows: list[tuple[str, object]] = []
    for name, value in described.items():
        if name == "kind" or name in omit:
            continue
        if isinstance(value, dict) and value:
            rows += [(name, ""), *((f"  {key}", item) for key, item in value.items())]
        else:
            rows.append((name, value))
    return table(title, ("", ""), rows)


def table(title: str, names: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
    """A table whose numbers stand on the right."""
    cells = [list(row) for row in rows]
    made = Table(title=title or None, title_justify="left", show_header=any(names := list(names)))
    for index, name in enumerate(names):
        numeric = bool(cells) and all(isinstance(row[index], int) for row in cells)
        made.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        made.add_row(*(escape(text(cell)) for cell in row))
    return made


def text(value: object) -> str:
    """A value for people: floats with six significant digits, lists and dictionaries spelled out, None as a dash."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(text(item) for item in value)
    return str(value)
