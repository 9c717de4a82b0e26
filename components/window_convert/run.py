"""Series store to slice set: window, resize, find the site of the tumour, split by patient, check the prevalence."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from hounsfield.components.window_convert.config import Config
from hounsfield.data.arrow import SliceWriter
from hounsfield.data.series_store import HU, Mask, SeriesRow, SeriesStore
from hounsfield.data.slice_set import DETECTION, IMAGES, KIND, SEGMENTATION, VERSION, SliceIndex, write_index
from hounsfield.data.splits import SPLITS, balanced_folds, split_of
from hounsfield.data.tumour_site import SITES, tumour_site
from hounsfield.errors import InputError
from hounsfield.progress import track
from hounsfield.storage import atomic_directory, sha256_bytes, write_manifest
from hounsfield.windowing import Window, resize, window_for

SLICES_AT_ONCE = 16
DEFAULT_MAX_PREVALENCE = {SEGMENTATION: 0.25, DETECTION: 0.5}


def run(config: Config, store: Path, slices: Path) -> None:
    """Convert every labelled series of `store` into the slice set `slices`.

    Raises:
        ArtifactError: `store` is not a series store.
        InputError: no labelled series, no training patient, or a prevalence that cannot be right.
    """
    source = SeriesStore(store)
    labelled = [row for row in source.series if row.label_source != "none"]
    if not labelled:
        raise InputError(f"{store}: none of its {len(source.series)} series has a label: ingest labels with the images")
    splits = assign_splits(config, labelled)
    folds = balanced_folds(splits, config.split_seed, config.folds)
    window = window_for(config.task, config.width, config.level, config.size)
    size = window.size
    assert size is not None
    check_prevalence(config, source, labelled)
    segmentation = config.task == SEGMENTATION
    with atomic_directory(slices) as out:
        index: list[SliceIndex] = []
        columns = {"image": (window.dtype, (size, size))}
        if segmentation:
            columns["mask"] = (np.dtype(np.uint8), (size, size))
        sites: dict[str, set[str]] = {}
        vanished = 0
        with SliceWriter(out / IMAGES, columns) as writer:
            for row in track(labelled, "window", len(labelled)):
                hu, mask = source.volume(row)
                pixels = convert_series(hu, mask, window, writer, segmentation)
                if segmentation and mask is not None:
                    sites.setdefault(row.patient, set()).add(tumour_site(hu, mask, row.spacing))
                vanished += row.label_voxels > 0 and sum(pixels) == 0
                index.extend(index_rows(row, splits[row.patient], folds[row.patient], pixels, size))
        index = [replace(item, subgroup=patient_site(sites.get(item.patient, set()))) for item in index]
        write_index(out, index)
        counts = count(index)
        assignment = sorted((row.key, splits[row.patient]) for row in labelled)
        division = [config.split_seed, config.folds, config.val_fraction]
        identity = json.dumps([source.dataset_hash, config.task, window.to_dict(), assignment, division])
        write_manifest(
            out,
            KIND,
            VERSION,
            task=config.task,
            window=window.to_dict(),
            size=[size, size],
            dataset_hash=source.dataset_hash,
            hash=sha256_bytes(identity.encode()),
            counts=counts,
            split={"seed": config.split_seed, "val": config.val_fraction, "test": config.test_fraction},
            folds=config.folds,
            subgroups=subgroups(index),
        )
    if vanished:
        print(f"warning: {vanished} labels vanished at {size}x{size} pixels: choose a larger --size")
    parts = ", ".join(f"{counts[name]['patients']} {name}" for name in SPLITS)
    positive = sum(part["positive_slices"] for part in counts.values())
    print(f"{len(index)} slices, {positive} positive, patients: {parts}; slice set: {slices}")


def assign_splits(config: Config, series: list[SeriesRow]) -> dict[str, str]:
    """Split of each patient key: as the cases file fixed it, else by hash."""
    fixed: dict[str, set[str]] = {}
    for row in series:
        fixed.setdefault(row.patient, set()).update({row.split} - {""})
    splits = {}
    for patient, names in fixed.items():
        if len(names) > 1:
            raise InputError(
                f"patient {patient} stands in several splits ({', '.join(sorted(names))}): give all cases of a patient "
                "the same split in the cases file"
            )
        splits[patient] = next(iter(names), None) or split_of(
            patient, config.split_seed, config.val_fraction, config.test_fraction
        )
    missing = [name for name in ("train", "test") if name not in splits.values()]
    if missing and not (missing == ["test"] and config.test_fraction == 0):
        seed = suggest_seed(config, sorted(splits), any(row.split for row in series))
        raise InputError(
            f"none of the {len(splits)} patients falls into the {' or '.join(missing)} split: add patients, give the "
            f"cases file a `split` column (train, val, test){seed}"
        )
    return splits


def suggest_seed(config: Config, patients: list[str], fixed: bool) -> str:
    """The end of the sentence: a seed under which no split is empty, when there is one."""
    for seed in range(0 if fixed else 1000):
        names = {split_of(patient, seed, config.val_fraction, config.test_fraction) for patient in patients}
        if {"train", "test"} <= names:
            return f", or use split_seed={seed}"
    return ""


def check_prevalence(config: Config, source: SeriesStore, series: list[SeriesRow]) -> None:
    """Stop when the share of positives cannot be right.

    Raises:
        InputError: no positive at all, or more than `max_prevalence`.
    """
    if config.task == SEGMENTATION:
        positive = sum(row.label_voxels for row in series)
        total = sum(row.slices * row.rows * row.columns for row in series)
        unit, wrong = "pixels", "is the label of something larger than a tumour, or inverted"
    else:
        keys = {row.key for row in series}
        labels = [row.label_voxels for row in source.slices() if row.series in keys]
        positive, total = sum(voxels > 0 for voxels in labels), len(labels)
        unit, wrong = "slices", "is the label of more than L3, or inverted"
    limit = config.max_prevalence or DEFAULT_MAX_PREVALENCE[config.task]
    if positive == 0:
        raise InputError(f"no positive {unit} among {total} in {len(series)} labelled series: check the label value")
    if positive > limit * total:
        raise InputError(
            f"{positive} of {total} {unit} are positive ({positive / total:.1%}, limit {limit:.0%}): the label "
            f"probably {wrong}; check the label value, or raise max_prevalence"
        )


def convert_series(hu: HU, mask: Mask | None, window: Window, writer: SliceWriter, segmentation: bool) -> list[int]:
    """Append the images (and masks) of one series; returns the label pixels of each slice."""
    pixels: list[int] = []
    for start in range(0, len(hu), SLICES_AT_ONCE):
        block = slice(start, start + SLICES_AT_ONCE)
        columns = {"image": window.stored(torch.tensor(hu[block]))}
        part = mask[block] if mask is not None else None
        if segmentation:
            labels = torch.zeros(hu[block].shape) if part is None else torch.tensor(part).float()
            columns["mask"] = (resize(labels, window.size) >= 0.5).to(torch.uint8).numpy()
            pixels.extend(int(n) for n in columns["mask"].sum(axis=(1, 2), dtype=int))
        else:
            pixels.extend([0] * len(hu[block]) if part is None else [int(n) for n in part.sum(axis=(1, 2), dtype=int)])
        writer.append(columns)
    return pixels


def index_rows(row: SeriesRow, split: str, fold: int, pixels: list[int], size: int) -> list[SliceIndex]:
    """Index of one series' slices; pixel spacing is that of the resized images."""
    return [
        SliceIndex(
            patient=row.patient,
            series=row.key,
            slice=i,
            position_mm=i * row.spacing_slice,
            spacing_slice=row.spacing_slice,
            spacing_row=row.spacing_row * row.rows / size,
            spacing_column=row.spacing_column * row.columns / size,
            split=split,
            fold=fold,
            label_pixels=count,
        )
        for i, count in enumerate(pixels)
    ]


def patient_site(sites: set[str]) -> str:
    """Site of a patient with several series: on the chest wall when a tumour of any is."""
    return next((site for site in SITES if site in sites), "")


def subgroups(index: list[SliceIndex]) -> dict[str, int]:
    """Patients by site of the tumour, those with a known one."""
    patients = {row.patient: row.subgroup for row in index}
    return {site: list(patients.values()).count(site) for site in SITES}


def count(index: list[SliceIndex]) -> dict[str, dict[str, int]]:
    """Patients, series, slices and positive slices of each split."""
    slices = Counter(row.split for row in index)
    positive = Counter(row.split for row in index if row.positive)
    patients = Counter(split for _, split in {(row.patient, row.split) for row in index})
    series = Counter(split for _, split in {(row.series, row.split) for row in index})
    return {
        name: {
            "patients": patients[name],
            "series": series[name],
            "slices": slices[name],
            "positive_slices": positive[name],
        }
        for name in SPLITS
    }
