"""bf16 screens, float32 decides: masks are float32's, and a bf16 that is not exact enough is noticed."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from predict_networks import predictor
from tiny_models import tiny_model
from torch import nn

from hounsfield import inference, models
from hounsfield.inference import Network
from hounsfield.predict import scoring
from hounsfield.predict.model import load_predictor
from hounsfield.predict.scoring import CHECKED, MARGIN, Scores
from hounsfield.windowing import MEDIASTINAL, Window

CPU = torch.device("cpu")
SLICES = 40
POSITIVE = (5, 6, 21, 22, 23)


def volume(size: int = 48) -> npt.NDArray[np.int16]:
    """Noise of soft tissue in air; in the slices `POSITIVE` a bright square."""
    hu = np.random.default_rng(2).normal(-100, 20, (SLICES, size, size)).astype(np.int16)
    for k in POSITIVE:
        hu[k, 10:30, 12:28] = 150
    return hu


def network(module: nn.Module, size: int = 48) -> Network:
    card = predictor(size=size).network.card
    return Network(module.eval(), card, CPU)


class Spy:
    """Counts the slices that each precision computes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.slices = {"fp32": 0, "bf16": 0}
        compute = Network.foreground_logits

        def counted(own: Network, images: torch.Tensor, precision: inference.Precision = "fp32") -> torch.Tensor:
            self.slices[precision] += len(images)
            return compute(own, images, precision)

        monkeypatch.setattr(Network, "foreground_logits", counted)


class Separated(nn.Module):
    """A U-Net with random weights whose log-odds follow the brightness: about +-6, with the errors of its layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.unet = models.build("unet", base_channels=8, depth=3, batch_norm=True).eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.unet(images)
        bright = torch.nn.functional.avg_pool2d(images, 5, 1, 2)
        foreground = 30 * (bright - 0.5) + (logits[:, 1:] - logits[:, :1])
        return torch.cat([torch.zeros_like(foreground), foreground], dim=1)


class Low(nn.Module):
    """Log-odds by brightness that bf16 puts lower by `by`, or gives as NaN."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        odds = 8 * (images - 0.5)
        if torch.is_autocast_enabled("cpu"):
            odds = odds - self.by
        return torch.cat([torch.zeros_like(odds), odds], dim=1)


def exact(module: nn.Module, hu: npt.NDArray[np.int16], size: int) -> npt.NDArray[np.float32]:
    """Log-odds of the whole volume at once in float32, by torch alone."""
    window = Window(MEDIASTINAL.lower, MEDIASTINAL.upper, bits=8, size=size)
    with torch.no_grad():
        logits = module.eval()(window(torch.from_numpy(hu))[:, None])
        odds = logits[:, 1:] - logits[:, :1]
        odds = torch.nn.functional.interpolate(odds, hu.shape[1:], mode="bilinear", antialias=True)
    return odds[:, 0].numpy()


def screened(module: nn.Module, hu: npt.NDArray[np.int16], size: int = 48, batch: int = 7) -> tuple[Scores, list[int]]:
    done: list[int] = []
    return scoring.Scorer(network(module, size), hu, batch, done.append).screened(), done


@pytest.mark.parametrize("size", [48, 24])
def test_masks_are_those_of_float32_and_few_slices_are_computed_twice(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hu, module, spy = volume(), Separated(), Spy(monkeypatch)
    expected = exact(module, hu, size)
    assert set(np.flatnonzero((expected >= 0).any(axis=(1, 2)))) == set(POSITIVE)
    found, done = screened(module, hu, size)
    assert found.computed == "bf16, decided in fp32"
    np.testing.assert_array_equal(found.log_odds >= 0, expected >= 0)
    np.testing.assert_allclose(found.log_odds[list(POSITIVE)], expected[list(POSITIVE)], rtol=1e-4, atol=1e-4)
    assert spy.slices == {"bf16": SLICES, "fp32": CHECKED}
    off = np.abs(found.log_odds - expected).max(axis=(1, 2))
    assert 1e-3 < off.max() < MARGIN / 2, "the slices that nothing rests on are left in bf16"
    assert sum(done) == SLICES


@pytest.mark.parametrize("by", [MARGIN / 2 + 0.1, MARGIN + 5.0, float("nan")])
def test_a_bf16_that_falls_short_is_not_believed(by: float, monkeypatch: pytest.MonkeyPatch) -> None:
    hu, module, spy = volume(), Low(by), Spy(monkeypatch)
    found, done = screened(module, hu)
    assert found.computed == "fp32 after bf16 was not exact enough"
    np.testing.assert_allclose(found.log_odds, exact(module, hu, 48), rtol=1e-5, atol=1e-5)
    assert spy.slices == {"bf16": SLICES, "fp32": SLICES}, "each slice once in float32"
    assert sum(done) <= SLICES


@pytest.mark.parametrize("by", [MARGIN / 2 - 0.1, -3.0])
def test_a_bf16_that_errs_within_the_margin_or_upwards_does_not_change_the_mask(by: float) -> None:
    hu, module = volume(), Low(by)
    found, _ = screened(module, hu)
    assert found.computed == "bf16, decided in fp32"
    np.testing.assert_array_equal(found.log_odds >= 0, exact(module, hu, 48) >= 0)


def test_without_foreground_the_highest_slices_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    hu, spy = volume(), Spy(monkeypatch)
    hu[:] = np.minimum(hu, -80)
    found, done = screened(Low(0.0), hu)
    assert not (found.log_odds >= 0).any()
    assert spy.slices == {"bf16": SLICES, "fp32": CHECKED}
    assert sum(done) == SLICES
    assert screened(Low(float("nan")), hu)[0].computed == "fp32 after bf16 was not exact enough"


def test_fewer_slices_than_are_checked() -> None:
    hu = volume()[:3]
    found, done = screened(Separated(), hu)
    np.testing.assert_allclose(found.log_odds, exact(Separated(), hu, 48), rtol=1e-4, atol=1e-4)
    assert sum(done) == 3


@pytest.mark.parametrize(("able", "task", "expected"), [
    ({"amx_bf16": True}, "lung-tumour", "bf16"),
    ({"avx512_bf16": True}, "lung-tumour", "bf16"),
    ({"avx512_bf16": False, "avx2": True}, "lung-tumour", "fp32"),
    ({"amx_bf16": True}, "l3-slice", "fp32"),
])  # fmt: skip
def test_bf16_is_taken_for_masks_where_the_processor_has_it(
    able: dict[str, Any], task: str, expected: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = tiny_model(tmp_path, task)
    assert load_predictor(task, model).precision == expected
    assert load_predictor(task, model, precision="fp32").precision == "fp32"
