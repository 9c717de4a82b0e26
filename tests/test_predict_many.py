"""A prediction of many series: what is done already, and what keeps one from being predicted and costs no other."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import dicom_factory as factory
import numpy as np
import pytest
import torch
from predict_networks import BRIGHT_HU, Bright, predict, predictor, result, scan
from pydicom.dataset import FileDataset
from pydicom.uid import MRImageStorage
from torch import nn

from hounsfield.dicom.sources import walk
from hounsfield.errors import InputError
from hounsfield.inference import Precision
from hounsfield.predict.run import predict_files
from hounsfield.predict.series import Candidate


@pytest.fixture(autouse=True)
def _pseudonym_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUNSFIELD_PSEUDONYM_KEY", "a key of the tests")


def test_what_is_done_is_not_done_again_unless_the_model_changed(tmp_path: Path) -> None:
    factory.write_series(tmp_path / "in", scan())
    predict(tmp_path / "in", tmp_path / "out")
    folder, _ = result(tmp_path / "out")
    before = (folder / "dicom" / "segmentation.dcm").read_bytes()
    (again,) = predict(tmp_path / "in", tmp_path / "out")
    assert again.status == "done"
    assert again.figures["lesions"] == 2
    assert (folder / "dicom" / "segmentation.dcm").read_bytes() == before
    (newer,) = predict(tmp_path / "in", tmp_path / "out", version="4")
    assert newer.status == "predicted"
    assert result(tmp_path / "out")[1]["provenance"]["model_version"] == "4"


def test_float32_that_is_asked_for_replaces_what_bf16_screened(tmp_path: Path) -> None:
    factory.write_series(tmp_path / "in", scan())
    for precision, status, computed in (
        ("bf16", "predicted", "bf16, decided in fp32"),
        ("bf16", "done", "bf16, decided in fp32"),
        ("fp32", "predicted", "fp32"),
        ("bf16", "done", "fp32"),
    ):
        asked = replace(predictor(), precision=cast(Precision, precision))
        (outcome,) = predict_files("lung-tumour", walk(tmp_path / "in"), asked, tmp_path / "out", 10, 5)
        assert (outcome.status, result(tmp_path / "out")[1]["computed"]) == (status, computed)


def two_series(tmp_path: Path) -> tuple[Path, Path]:
    """A folder with two good series, and that of the one named Roentgen, whose key sorts anywhere."""
    for name in ("Roentgen^Wilhelmina", "other"):
        factory.write_series(tmp_path / "in" / name, scan(), patient=name)
    return tmp_path / "in", tmp_path / "in" / "Roentgen^Wilhelmina"


@pytest.mark.parametrize("when", ["before its result is looked for", "before its headers are read"])
def test_files_that_go_away_cost_their_series_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    data, going = two_series(tmp_path)
    step = "sizes" if "looked for" in when else "headers"
    before = getattr(Candidate, step)

    def late(candidate: Candidate) -> Any:
        if candidate.series.slices[0].file.path.parent == going:
            shutil.rmtree(going, ignore_errors=True)
        return before(candidate)

    monkeypatch.setattr(Candidate, step, late)
    outcomes = predict(data, tmp_path / "out")
    assert sorted((item.status, item.reason) for item in outcomes) == [("predicted", ""), ("refused", "unreadable")]
    assert "Roentgen" not in (tmp_path / "out" / "results.json").read_text()
    assert len([path for path in (tmp_path / "out").iterdir() if path.is_dir()]) == 1


class Hungry(nn.Module):
    """Asks for more memory than any machine has, the first time."""

    asked = False

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if not self.asked:
            self.asked = True
            torch.empty(2**60, dtype=torch.uint8)
        return Bright()(images)


def test_series_for_which_memory_does_not_suffice_is_told_and_the_rest_is_predicted(tmp_path: Path) -> None:
    data, _ = two_series(tmp_path)
    network = replace(predictor().network, module=Hungry())
    outcomes = predict_files(
        "lung-tumour", walk(data), replace(predictor(), network=network), tmp_path / "out", min_slices=10, batch_size=5
    )
    assert sorted((item.status, item.reason) for item in outcomes) == [("failed", "out-of-memory"), ("predicted", "")]


def spoil(dataset: FileDataset, k: int) -> None:
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    dataset.Modality = "MR"


def without_hu(dataset: FileDataset, k: int) -> None:
    del dataset.RescaleSlope, dataset.RescaleIntercept


def cut_short(dataset: FileDataset, k: int) -> None:
    if k == 4:
        dataset.PixelData = dataset.PixelData[:100]


def without_frame_of_reference(dataset: FileDataset, k: int) -> None:
    del dataset.FrameOfReferenceUID


def impossible_study(dataset: FileDataset, k: int) -> None:
    dataset.StudyDate = "yesterday"


def test_bad_series_are_refused_with_their_reasons_and_the_rest_is_predicted(tmp_path: Path) -> None:
    data = tmp_path / "in"
    factory.write_series(data / "deep" / "good", scan())
    factory.write_series(data / "mr", scan(), change=spoil)
    factory.write_series(data / "no-hu", scan(), change=without_hu)
    factory.write_series(data / "three", scan()[:3])
    factory.write_series(data / "cut", scan(), change=cut_short)
    factory.write_series(data / "no-frame", scan(), change=without_frame_of_reference)
    factory.write_series(data / "gap", np.delete(scan(), 5, axis=0), step=None, change=gap)
    (data / "notes.txt").write_text("seen by Dr. Roentgen")
    outcomes = predict(data, tmp_path / "out")
    table = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [item["series"] for item in table["series"]] == [item.series for item in outcomes]
    reasons = sorted((item.status, item.reason) for item in outcomes)
    assert reasons == [
        ("predicted", ""),
        ("refused", "missing-slices"),
        ("refused", "no-identifiers"),
        ("refused", "not-hu"),
        ("refused", "too-few-slices"),
        ("refused", "unreadable"),
    ]
    assert all(item.sentence for item in outcomes if item.status == "refused")
    assert table["files_not_used"]["not-ct"]["files"] == 12
    assert table["files_not_used"]["not-dicom"]["files"] == 1
    assert len([path for path in (tmp_path / "out").iterdir() if path.is_dir()]) == 1
    assert "Roentgen" not in json.dumps(table)


def gap(dataset: FileDataset, k: int) -> None:
    if k >= 5:
        dataset.ImagePositionPatient = [-40.0, -30.0, 100.0 + 2.5 * (k + 1)]


def test_nothing_to_predict_is_one_error_with_the_reasons(tmp_path: Path) -> None:
    factory.write_series(tmp_path / "in", scan()[:3])
    with pytest.raises(InputError, match=r"no series was predicted: too-few-slices .1 series: 3 of at least 10 slices"):
        predict(tmp_path / "in", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "results.json").read_text())["series"][0]["reason"] == "too-few-slices"


def test_headers_that_allow_no_dicom_result_leave_nothing_behind(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    factory.write_series(tmp_path / "in" / "bad", scan(), change=impossible_study)
    factory.write_series(tmp_path / "in" / "good", scan(), patient="MRN-OTHER")
    caplog.clear()
    outcomes = predict(tmp_path / "in", tmp_path / "out")
    assert sorted((item.status, item.reason) for item in outcomes) == [("failed", "dicom-headers"), ("predicted", "")]
    assert "yesterday" not in (tmp_path / "out" / "results.json").read_text()
    assert len([path for path in (tmp_path / "out").iterdir() if path.is_dir()]) == 1
    said = "".join(capfd.readouterr()) + caplog.text
    assert "Wilhelmina" not in said
    assert "yesterday" not in said


def test_too_many_lesions_are_no_result(tmp_path: Path) -> None:
    hu = scan({})
    hu[::2, ::4, ::4] = BRIGHT_HU
    factory.write_series(tmp_path / "in", hu)
    with pytest.raises(InputError, match=r"too-many-lesions .1 series: the network marks 600 separate regions"):
        predict(tmp_path / "in", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results.json"]
