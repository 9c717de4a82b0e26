"""Predictions on real CT whose network answers with the experts' own mask: what comes out must be that mask."""

import json
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import SimpleITK as sitk
import torch
from predict_networks import WEIGHTS_HASH, dicom_errors, predictor, result
from torch import nn

from hounsfield.dicom.sources import walk
from hounsfield.inference import Network
from hounsfield.predict.model import Predictor
from hounsfield.predict.run import predict_files

pytestmark = pytest.mark.real_data
LIDC = "lung_dicom_LIDC_concept-to-clinic"
CASES = {
    "ibsi": ("lung_dicom_rtstruct_ibsi/dicom/image", "lung_dicom_rtstruct_ibsi/nifti/mask/mask.nii.gz"),
    "lidc-1": (f"{LIDC}/LIDC-IDRI-0001", f"{LIDC}/LIDC-IDRI-0001/mask_2_readers.nii.gz"),
    "lidc-2": (f"{LIDC}/LIDC-IDRI-0002", f"{LIDC}/LIDC-IDRI-0002/mask_2_readers.nii.gz"),
}


@pytest.fixture(autouse=True)
def _pseudonym_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUNSFIELD_PSEUDONYM_KEY", "a key of the tests")


class Expert(nn.Module):
    """Log-odds +-5 of a mask (slice, row, column), slice after slice in the order in which they are asked for."""

    def __init__(self, mask: npt.NDArray[np.bool_]) -> None:
        super().__init__()
        self.mask, self.place = torch.from_numpy(mask), 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        part = self.mask[self.place : self.place + len(images), None]
        assert part.shape == images.shape
        self.place += len(images)
        odds = torch.where(part, 5.0, -5.0)
        return torch.cat([torch.zeros_like(odds), odds], dim=1)


def expert(mask: npt.NDArray[np.bool_]) -> Predictor:
    card = predictor().network.card
    card = card.model_copy(update={"window": card.window | {"size": None}, "image_size": list(mask.shape[1:])})
    return Predictor(Network(Expert(mask), card, torch.device("cpu")), "experts", "1", WEIGHTS_HASH)


@pytest.mark.parametrize("case", CASES)
def test_mask_of_experts_comes_back_with_its_volume_and_diameters(case: str, real_data: Path, tmp_path: Path) -> None:
    images, label = (real_data / part for part in CASES[case])
    truth = sitk.DICOMOrient(sitk.ReadImage(str(label)), "LPS")
    mask = sitk.GetArrayFromImage(truth) > 0
    (outcome,) = predict_files("lung-tumour", walk(images), expert(mask), tmp_path / "out", min_slices=10, batch_size=5)
    assert outcome.status == "predicted"
    folder, figures = result(tmp_path / "out")

    connected = sitk.ConnectedComponent(truth > 0, True)
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(connected)
    volumes = sorted((statistics.GetPhysicalSize(number) / 1000 for number in statistics.GetLabels()), reverse=True)
    assert [item["volume_ml"] for item in figures["lesions"]] == pytest.approx(volumes, rel=1e-4)
    assert figures["total"]["volume_ml"] == pytest.approx(mask.sum() * np.prod(truth.GetSpacing()) / 1000, rel=1e-4)

    largest = figures["lesions"][0]
    own = sitk.GetArrayFromImage(connected)
    own = own == own[mask][np.argmax(np.bincount(own[mask])[own[mask]])]
    across, edge = feret(own, truth.GetSpacing()[:2]), float(np.hypot(*truth.GetSpacing()[:2]))
    assert across < largest["longest_axial_diameter_mm"] <= across + edge + 1e-4
    assert 0 < largest["perpendicular_mm"] <= largest["longest_axial_diameter_mm"]

    seg = hd.seg.segread(folder / "dicom" / "segmentation.dcm")
    sources = sorted(
        (pydicom.dcmread(file.path, stop_before_pixels=True) for file in walk(images) if file.path.suffix == ".dcm"),
        key=lambda item: float(item.ImagePositionPatient[2]),
    )
    sources = [item for item in sources if item.Modality == "CT"]
    back = seg.get_pixels_by_source_instance(
        [item.SOPInstanceUID for item in sources],
        combine_segments=True,
        ignore_spatial_locations=False,
        assert_missing_frames_are_empty=True,
    )
    np.testing.assert_array_equal(back > 0, mask)
    assert dicom_errors(folder / "dicom" / "segmentation.dcm") == []
    assert dicom_errors(folder / "dicom" / "report.dcm") == []
    assert json.loads((folder / "result.json").read_text())["provenance"]["model_name"] == "experts"


def feret(mask: npt.NDArray[np.bool_], spacing: tuple[float, float]) -> float:
    """Largest Feret diameter of the axial sections in mm by SimpleITK, which measures between pixel centres."""
    longest = 0.0
    for plane in mask[mask.any(axis=(1, 2))]:
        image = sitk.GetImageFromArray(plane.astype(np.uint8))
        image.SetSpacing(spacing)
        statistics = sitk.LabelShapeStatisticsImageFilter()
        statistics.ComputeFeretDiameterOn()
        statistics.Execute(image)
        longest = max(longest, statistics.GetFeretDiameter(1))
    return longest
