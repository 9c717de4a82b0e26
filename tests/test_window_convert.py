"""window-convert: images, masks, splits and prevalence."""

from pathlib import Path

import numpy as np
import pytest
import torch
from stores import make_store

from hounsfield.components.window_convert.config import Config
from hounsfield.components.window_convert.run import run
from hounsfield.data.series_store import SeriesStore
from hounsfield.data.slice_set import SliceSet
from hounsfield.data.splits import TEST, VAL, balanced_folds, held_out, split_of
from hounsfield.errors import InputError
from hounsfield.windowing import MEDIASTINAL

PATIENTS = [f"patient-{i}" for i in range(12)]


def convert(tmp_path: Path, store: Path, **settings: object) -> SliceSet:
    run(Config(**settings), store, tmp_path / "slices")
    return SliceSet(tmp_path / "slices")


def test_segmentation_images_and_masks_are_the_volumes(tmp_path: Path) -> None:
    path = make_store(tmp_path / "store", PATIENTS, shape=(20, 24, 24))
    slices = convert(tmp_path, path, size=24)
    store = SeriesStore(path)
    rows = {row.key: row for row in store.series}
    assert len(slices) == 12 * 20
    for i in (0, 17, 100, 239):
        item = slices.index[i]
        hu, mask = store.volume(rows[item.series])
        assert mask is not None
        expected = MEDIASTINAL.stored(torch.tensor(hu[item.slice : item.slice + 1]))[0]
        np.testing.assert_array_equal(slices.image(i), expected)
        np.testing.assert_array_equal(slices.mask(i), mask[item.slice])
        assert item.positive == (3 <= item.slice < 5)


def test_l3_images_are_224_float(tmp_path: Path) -> None:
    slices = convert(tmp_path, make_store(tmp_path / "store", PATIENTS), task="l3-slice")
    assert slices.shape == (224, 224)
    assert slices.image(3).dtype == np.float32
    assert slices.image(3).min() == 0
    assert slices.image(3).max() == 1
    assert slices.index[0].spacing_row == pytest.approx(0.8 * 24 / 224)


def test_resized_mask_keeps_its_area(tmp_path: Path) -> None:
    slices = convert(tmp_path, make_store(tmp_path / "store", PATIENTS, shape=(8, 24, 20)), size=96)
    positive = next(i for i, row in enumerate(slices.index) if row.positive)
    area = slices.mask(positive).sum() * (24 / 96) * (20 / 96)
    assert area == pytest.approx(6 * 7, rel=0.05)


def test_adding_patients_never_moves_one(tmp_path: Path) -> None:
    few = convert(tmp_path / "a", make_store(tmp_path / "s1", PATIENTS))
    many = convert(tmp_path / "b", make_store(tmp_path / "s2", PATIENTS + [f"new-{i}" for i in range(30)]))
    before = {row.patient: row.split for row in few.index}
    after = {row.patient: row.split for row in many.index}
    assert {patient: after[patient] for patient in before} == before
    assert set(after.values()) == {"train", "val", "test"}


def test_split_shares_follow_the_fractions() -> None:
    splits = [split_of(f"p{i}", seed=3, val_fraction=0.15, test_fraction=0.2) for i in range(4000)]
    assert splits.count("test") / 4000 == pytest.approx(0.2, abs=0.02)
    assert splits.count("val") / 4000 == pytest.approx(0.15, abs=0.02)


def test_every_patient_is_held_out_once_and_folds_are_balanced() -> None:
    patients = [f"p{i}" for i in range(23)]
    folds = balanced_folds(patients, 3, 5)
    assert sorted(list(folds.values()).count(k) for k in range(5)) == [4, 4, 5, 5, 5]
    assert folds == balanced_folds(patients[::-1] * 2, 3, 5)
    tested = []
    for fold in range(5):
        splits = held_out(folds, fold, 3, val_fraction=0.2)
        tested += [patient for patient, split in splits.items() if split == TEST]
        assert list(splits.values()).count(VAL) == 4
    assert sorted(tested) == sorted(patients)


def test_cases_file_fixes_the_split(tmp_path: Path) -> None:
    split = {"a": "train", "b": "test", "c": "val"}
    slices = convert(tmp_path, make_store(tmp_path / "store", ["a", "b", "c"], split=split))
    assert {row.patient: row.split for row in slices.index} == split


def test_empty_split_names_the_way_out(tmp_path: Path) -> None:
    patients = ["only", "two"]
    store = make_store(tmp_path / "store", patients)
    empty = next(seed for seed in range(99) if {split_of(p, seed, 0.15, 0.2) for p in patients} == {"train"})
    with pytest.raises(InputError, match=r"`split` column .* or use split_seed=(\d+)") as raised:
        convert(tmp_path, store, split_seed=empty)
    seed = int(str(raised.value).rsplit("=", 1)[1])
    assert {row.split for row in convert(tmp_path, store, split_seed=seed).index} >= {"train", "test"}


def test_no_positive_slice_stops(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", PATIENTS, label_slices=(0, 0))
    with pytest.raises(InputError, match="no positive slices among 96"):
        convert(tmp_path, store, task="l3-slice")
    assert not (tmp_path / "slices").exists()


def test_swapped_labels_stop(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", PATIENTS, label_slices=(0, 7))
    with pytest.raises(InputError, match=r"84 of 96 slices are positive \(87.5%, limit 50%\)"):
        convert(tmp_path, store, task="l3-slice")
    assert len(convert(tmp_path, store, task="l3-slice", max_prevalence=0.9)) == 96


def test_unlabelled_store_stops(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of its 1 series has a label"):
        convert(tmp_path, make_store(tmp_path / "store", ["a"], labelled=False))


def test_site_of_the_tumour_is_the_patients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter(["chest-wall", "intrapulmonary", ""] * 4)
    monkeypatch.setattr("hounsfield.components.window_convert.run.tumour_site", lambda hu, mask, spacing: next(found))
    store = make_store(tmp_path / "store", PATIENTS)
    slices = convert(tmp_path, store)
    order = [row.patient for row in SeriesStore(store).series]
    by_patient = {row.patient: row.subgroup for row in slices.index}
    assert [by_patient[patient] for patient in order] == ["chest-wall", "intrapulmonary", ""] * 4
    assert slices.manifest["subgroups"] == {"chest-wall": 4, "intrapulmonary": 4}


def test_l3_slices_have_no_site(tmp_path: Path) -> None:
    slices = convert(tmp_path, make_store(tmp_path / "store", PATIENTS), task="l3-slice")
    assert {row.subgroup for row in slices.index} == {""}


def test_same_store_same_bytes(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", PATIENTS)
    for name in ("a", "b"):
        convert(tmp_path / name, store)
    for name in ("manifest.json", "index.parquet", "images.arrow"):
        assert (tmp_path / "a/slices" / name).read_bytes() == (tmp_path / "b/slices" / name).read_bytes()
