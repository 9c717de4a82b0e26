"""A cohort of synthetic patients on disk, with the cases file that the ingest step reads."""

from __future__ import annotations

import csv
import os
import signal
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np

from hounsfield.errors import InputError
from hounsfield.phantom.abdomen import Abdomen
from hounsfield.phantom.chest import Chest
from hounsfield.phantom.dicom import Subject, identifier, write_nifti, write_seg, write_series
from hounsfield.phantom.scanner import Scan, Settings, acquire, plan
from hounsfield.progress import Progress
from hounsfield.storage import atomic_directory

Region = Literal["chest", "abdomen"]
CASES = "cases.csv"
LABELS = {"chest": "tumour.seg.dcm", "abdomen": "l3.nii.gz"}
_REGIONS: dict[str, type[Chest] | type[Abdomen]] = {"chest": Chest, "abdomen": Abdomen}
_SIZES = (32, 1024)
_THICKNESSES = (0.5, 10.0)


def prepare(
    region: Region, number: int, seed: int, size: int = 512, slice_thickness: float = 5.0
) -> tuple[Chest | Abdomen, Settings]:
    """Body and scan settings of patient `number` (from 1) of a cohort.

    They depend on region, seed and number alone, never on how many patients there are; image size and slice thickness
    change the settings but not the body.
    """
    anatomy = _REGIONS[region](_rng(region, number, seed, "body"))
    return anatomy, plan(anatomy, _rng(region, number, seed, "scanner"), size, slice_thickness)


def make_patient(
    region: Region, number: int, seed: int, size: int = 512, slice_thickness: float = 5.0
) -> tuple[Scan, Chest | Abdomen]:
    """Scan patient `number` of a cohort: the scan, size x size pixels, and the body behind it."""
    anatomy, settings = prepare(region, number, seed, size, slice_thickness)
    return acquire(anatomy, settings, size, _rng(region, number, seed, "noise")), anatomy


def _rng(region: Region, number: int, seed: int, part: str) -> np.random.Generator:
    return np.random.default_rng([seed, number, *f"{region} {part}".encode()])


def write_cohort(
    region: Region,
    out: Path,
    patients: int,
    seed: int,
    size: int = 512,
    slice_thickness: float = 5.0,
    workers: int | None = None,
) -> Path:
    """Write `patients` synthetic CT series with labels under `out` and return the path of its cases file.

    Each patient is a folder PHANTOM-NNNN: `ct/*.dcm`, size x size pixels, and `tumour.seg.dcm` (chest) or `l3.nii.gz`
    (abdomen). Same arguments, same bytes. `slice_thickness` in mm; `workers` processes, default one per core.

    Raises:
        InputError: `out` is not empty or not writable, or a number is out of range.
    """
    out = Path(out)
    if region not in _REGIONS:
        raise InputError(f"region {region!r}: expected one of {', '.join(_REGIONS)}")
    for name, value, (low, high) in (
        ("patients", patients, (1, 9999)),
        ("seed", seed, (0, 2**31 - 1)),
        ("size", size, _SIZES),
        ("slice thickness", slice_thickness, _THICKNESSES),
    ):
        if not low <= value <= high:
            raise InputError(f"{name} {value}: expected {low} to {high}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"output {out} already exists and is not an empty folder: choose another")
    numbers = range(1, patients + 1)
    with atomic_directory(out) as partial, Progress(f"{region} phantom", patients) as progress:
        processes = min(workers or os.cpu_count() or 1, patients)
        jobs = [(region, number, partial, seed, size, slice_thickness) for number in numbers]
        if processes == 1:
            for job in jobs:
                _write_patient(*job)
                progress.advance()
        else:
            # spawn: the parent may run threads (torch, Arrow), which a fork would copy in an unknown state.
            with ProcessPoolExecutor(processes, get_context("spawn"), _leave_interrupts_to_parent) as pool:
                futures = [pool.submit(_write_patient, *job) for job in jobs]
                try:
                    for future in as_completed(futures):
                        future.result()
                        progress.advance()
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
        with (partial / CASES).open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["image", "label", "label_value", "patient"])
            for number in numbers:
                folder = _folder(number)
                patient = identifier(region, seed, number)
                writer.writerow([f"{folder}/ct", f"{folder}/{LABELS[region]}", 1, patient])
    return out / CASES


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _folder(number: int) -> str:
    return f"PHANTOM-{number:04d}"


def _write_patient(region: Region, number: int, root: Path, seed: int, size: int, slice_thickness: float) -> None:
    scan, anatomy = make_patient(region, number, seed, size, slice_thickness)
    subject = Subject(region, seed, number, anatomy.sex, anatomy.age)
    folder = root / _folder(number)
    images = write_series(folder / "ct", subject, scan)
    if region == "chest":
        write_seg(folder / LABELS[region], subject, scan, images)
    else:
        write_nifti(folder / LABELS[region], scan)
