"""Patient-level splits that never move a patient: each is a function of the patient's key and the seed alone."""

import hashlib
from collections.abc import Iterable

TRAIN, VAL, TEST = "train", "val", "test"
SPLITS = (TRAIN, VAL, TEST)


def _uniform(patient: str, seed: int, purpose: str) -> float:
    digest = hashlib.sha256(f"{purpose}\0{seed}\0{patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(patient: str, seed: int, val_fraction: float, test_fraction: float) -> str:
    """`train`, `val` or `test` of a patient key."""
    position = _uniform(patient, seed, "split")
    if position < test_fraction:
        return TEST
    return VAL if position < test_fraction + val_fraction else TRAIN


def balanced_folds(patients: Iterable[str], seed: int, folds: int) -> dict[str, int]:
    """Cross-validation fold 0..folds-1 of each patient key, as many patients in each as can be.

    Unlike a split, a fold belongs to this set of patients: others are dealt out anew when patients come or go.
    """
    dealt = sorted(set(patients), key=lambda patient: _uniform(patient, seed, "fold"))
    return {patient: place % folds for place, patient in enumerate(dealt)}


def held_out(folds: dict[str, int], fold: int, seed: int, val_fraction: float) -> dict[str, str]:
    """Split of each patient when `fold` is the test fold: `val_fraction` of the others (at least one) is the inner
    validation split, the rest trains."""
    others = sorted((p for p, own in folds.items() if own != fold), key=lambda p: _uniform(p, seed, f"inner {fold}"))
    inner = set(others[: max(1, round(val_fraction * len(others)))] if val_fraction else [])
    return {p: TEST if own == fold else VAL if p in inner else TRAIN for p, own in folds.items()}
