"""Windows against SimpleITK and pydicom, and the stored forms."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from pydicom import Dataset
from pydicom.pixels import apply_windowing

from hounsfield.windowing import L3, MEDIASTINAL, Window, unstored, window_for


def random_hu(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1024, 3000, shape, dtype=np.int16)


def test_mediastinal_window_is_the_papers() -> None:
    assert (MEDIASTINAL.lower, MEDIASTINAL.upper) == (-125, 225)
    hu = np.array([[[-1000, -125, 50, 225, 3000]]], dtype=np.int16)
    assert MEDIASTINAL.stored(torch.tensor(hu)).tolist() == [[[0, 0, 128, 255, 255]]]


def test_mediastinal_window_equals_simpleitk() -> None:
    hu = random_hu((3, 40, 50))
    image = sitk.IntensityWindowing(sitk.Cast(sitk.GetImageFromArray(hu), sitk.sitkFloat64), -125, 225, 0, 255)
    expected = sitk.GetArrayFromImage(image)
    stored = MEDIASTINAL.stored(torch.tensor(hu))
    assert stored.dtype == np.uint8
    assert np.abs(stored - expected).max() <= 0.5 + 1e-4


def test_window_equals_dicom_linear_exact() -> None:
    hu = random_hu((1, 20, 20))
    header = Dataset()
    header.WindowWidth, header.WindowCenter = 350, 50
    header.BitsStored, header.PixelRepresentation, header.PhotometricInterpretation = 8, 0, "MONOCHROME2"
    header.VOILUTFunction = "LINEAR_EXACT"
    clipped = np.clip(hu.astype(float), -125, 225)
    expected = apply_windowing(clipped, header)
    assert np.abs(MEDIASTINAL.stored(torch.tensor(hu)) - expected).max() <= 0.5 + 1e-4


def test_l3_window_spans_zero_to_one_at_224() -> None:
    image = L3(torch.tensor(random_hu((2, 300, 260))))
    assert image.shape == (2, 224, 224)
    assert image.dtype == torch.float32
    assert image.amin(dim=(1, 2)).tolist() == [0, 0]
    assert image.amax(dim=(1, 2)).tolist() == [1, 1]


def test_l3_stretch_equals_simpleitk_rescale_of_the_clipped_slice() -> None:
    hu = random_hu((1, 224, 224)) // 2
    clipped = sitk.Clamp(sitk.Cast(sitk.GetImageFromArray(hu[0]), sitk.sitkFloat64), sitk.sitkFloat64, -200, 1500)
    expected = sitk.GetArrayFromImage(sitk.RescaleIntensity(clipped, 0, 1))
    np.testing.assert_allclose(L3(torch.tensor(hu))[0].numpy(), expected, atol=1e-6)


def test_constant_slice_becomes_zero() -> None:
    assert L3(torch.full((1, 30, 30), 40)).abs().max() == 0


def test_stored_images_come_back_as_the_network_sees_them() -> None:
    hu = torch.tensor(random_hu((2, 32, 32)))
    for window in (MEDIASTINAL, window_for("l3-slice", size=16)):
        assert torch.equal(unstored(torch.tensor(window.stored(hu))), window(hu))


def test_any_window_by_width_and_level() -> None:
    assert window_for("lung-tumour", 1500, -600, 64) == Window(-1350, 150, bits=8, size=64)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"lower": 5, "upper": 5}, "is empty"),
        ({"lower": 0, "upper": 1, "stretch": "wild"}, "expected one of none, minmax"),
        ({"lower": 0, "upper": 1, "bits": 12}, "expected 8"),
    ],
)
def test_impossible_windows_are_refused(arguments: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Window(**arguments)
