"""Patient-level splits that never move a patient: each is a function of the patient's key and the seed alone."""

import hashlib

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


def fold_of(patient: str, seed: int, folds: int = 5) -> int:
    """Cross-validation fold 0..folds-1 of a patient key."""
    return int(_uniform(patient, seed, "fold") * folds)
