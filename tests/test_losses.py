"""Losses against MONAI, finite differences, a 60-digit reference at extreme logits, and cases worked by hand."""

import itertools
import math

import mpmath
import pytest
import torch

from hounsfield.errors import InputError
from hounsfield.losses import BinaryLoss, WeightedCrossEntropy, build_loss

ALL = ("ce", "bl", "fl", "dice", "cl")
EXTREME = (0.0, 1e-4, 0.3, 5.0, 14.0, 20.0, 40.0, 100.0, 1e3, 1e4)


def two_class(z: torch.Tensor) -> torch.Tensor:
    """Logits (N, 2, H, W) whose difference is z (N, H, W)."""
    return torch.stack([torch.zeros_like(z), z], dim=1)


def value_and_gradient(loss: BinaryLoss, logits: torch.Tensor, target: torch.Tensor) -> tuple[float, torch.Tensor]:
    logits = logits.detach().clone().requires_grad_()
    value = loss(logits, target)
    value.backward()
    assert logits.grad is not None
    return value.item(), logits.grad


@pytest.mark.parametrize(
    ("alpha", "gamma", "beta"),
    list(itertools.product((0.1, 0.25, 0.75), (0.0, 1.0, 2.0, 4.0, 5.0), (0.0, 0.3, 0.7, 1.0))),
)
def test_combined_loss_and_gradient_equal_monai(alpha: float, gamma: float, beta: float) -> None:
    from monai.losses import DiceFocalLoss

    generator = torch.Generator().manual_seed(7)
    logits = torch.randn(3, 2, 17, 13, generator=generator, dtype=torch.float64) * 3
    target = torch.rand(3, 17, 13, generator=generator) < 0.1
    value, gradient = value_and_gradient(build_loss("cl", alpha, gamma, beta, smooth=1e-6), logits, target)

    oracle = DiceFocalLoss(
        sigmoid=True, batch=True, alpha=alpha, gamma=gamma, lambda_dice=beta, lambda_focal=1 - beta,
        smooth_nr=1e-6, smooth_dr=1e-6,
    )  # fmt: skip
    reference = logits.clone().requires_grad_()
    expected = oracle(reference[:, 1:] - reference[:, :1], target[:, None].double())
    expected.backward()
    assert value == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(gradient, reference.grad, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 4.0])
def test_gradients_equal_finite_differences(name: str, gamma: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = (torch.randn(2, 2, 3, 4, generator=generator, dtype=torch.float64) * 4).requires_grad_()
    target = torch.rand(2, 3, 4, generator=generator) < 0.4
    loss = build_loss(name, alpha=0.3, gamma=gamma, beta=0.6, smooth=1e-3)
    assert torch.autograd.gradcheck(lambda x: 3 * loss(x, target), (logits,), atol=1e-7, rtol=1e-4)


def exact(z: float, y: int, alpha: float | None, gamma: float) -> tuple[mpmath.mpf, mpmath.mpf]:
    """Focal loss of one pixel and its derivative by z, to 60 digits, straight from the definition."""
    with mpmath.workdps(60 + int(abs(z) / 2)):
        weight = mpmath.mpf(1) if alpha is None else mpmath.mpf(alpha if y else 1 - alpha)

        def focal(x: mpmath.mpf) -> mpmath.mpf:
            p = 1 / (1 + mpmath.exp(-x))
            p_t = p if y else 1 - p
            return -weight * (1 - p_t) ** mpmath.mpf(gamma) * mpmath.log(p_t)

        step = mpmath.mpf(10) ** (-20)
        x = mpmath.mpf(z)
        return +focal(x), (focal(x + step) - focal(x - step)) / (2 * step)


@pytest.mark.parametrize("name", ["ce", "bl", "fl"])
@pytest.mark.parametrize("gamma", [2.0, 4.0])
def test_extreme_logits_keep_value_and_gradient(name: str, gamma: float) -> None:
    alpha, exponent = {"ce": (None, 0.0), "bl": (0.25, 0.0), "fl": (0.25, gamma)}[name]
    loss = build_loss(name, alpha=0.25, gamma=gamma)
    for magnitude, sign, y in itertools.product(EXTREME, (1, -1), (0, 1)):
        z = float(torch.tensor(sign * magnitude))
        value, gradient = value_and_gradient(loss, two_class(torch.full((1, 1, 1), z)), torch.full((1, 1, 1), y))
        expected, slope = exact(z, y, alpha, exponent)
        assert value == pytest.approx(float(expected), rel=2e-6, abs=1e-37), (z, y)
        assert gradient[0, 1].item() == pytest.approx(float(slope), rel=2e-6, abs=1e-37), (z, y)
        assert gradient[0, 0].item() == -gradient[0, 1].item()


@pytest.mark.parametrize("scale", [1.0, 20.0, 200.0])
def test_dice_of_extreme_logits_equals_a_60_digit_reference(scale: float) -> None:
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(1, 3, 4, generator=generator) * scale
    target = torch.rand(1, 3, 4, generator=generator) < 0.5
    value, gradient = value_and_gradient(build_loss("dice", smooth=1e-6), two_class(z), target)
    with mpmath.workdps(600):
        p = [1 / (1 + mpmath.exp(-mpmath.mpf(x))) for x in z.flatten().tolist()]
        y = [int(x) for x in target.flatten().tolist()]
        overlap = sum(a * b for a, b in zip(p, y, strict=True))
        smooth = mpmath.mpf(1e-6)
        top, bottom = 2 * overlap + smooth, sum(p) + sum(y) + smooth
        assert value == pytest.approx(float(1 - top / bottom), rel=2e-6)
        slopes = [
            -(2 * b * bottom - top) / bottom**2 * a * (1 - a) for a, b in zip(p, y, strict=True)
        ]  # fmt: skip
        for ours, truth in zip(gradient[0, 1].flatten().tolist(), slopes, strict=True):
            assert ours == pytest.approx(float(truth), rel=3e-6, abs=1e-37)


@pytest.mark.parametrize("name", ALL)
def test_half_precision_is_worked_on_in_float32(name: str) -> None:
    generator = torch.Generator().manual_seed(5)
    half = (torch.randn(2, 2, 9, 7, generator=generator) * 30).to(torch.bfloat16)
    target = torch.rand(2, 9, 7, generator=generator) < 0.2
    loss = build_loss(name)
    with torch.autocast("cpu", torch.bfloat16):
        value, gradient = value_and_gradient(loss, half, target)
    expected, exact_gradient = value_and_gradient(loss, half.float(), target)
    assert loss(half, target).dtype == torch.float32
    assert value == expected
    assert gradient.dtype == torch.bfloat16
    torch.testing.assert_close(gradient, exact_gradient.to(torch.bfloat16), rtol=0, atol=0)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("truth", [0, 1])
def test_empty_and_full_masks_are_finite_and_vanish_when_right(name: str, truth: int) -> None:
    target = torch.full((2, 5, 5), truth)
    right = torch.full((2, 5, 5), 60.0 if truth else -60.0)
    for z, check in ((right, lambda v: v == pytest.approx(0, abs=1e-6)), (-right, lambda v: v > 0.1)):
        value, gradient = value_and_gradient(build_loss(name, alpha=0.5), two_class(z), target)
        assert math.isfinite(value)
        assert check(value)
        assert torch.isfinite(gradient).all()


def test_values_worked_by_hand() -> None:
    z = torch.tensor([[[0.0, math.log(3)], [math.log(3), 0.0]]])  # p = 1/2, 3/4, 3/4, 1/2
    y = torch.tensor([[[1, 1], [0, 0]]])
    ln2, ln4 = math.log(2), math.log(4)
    cross = (ln2 + math.log(4 / 3) + ln4 + ln2) / 4
    balanced = (0.25 * ln2 + 0.25 * math.log(4 / 3) + 0.75 * ln4 + 0.75 * ln2) / 4
    focal = (0.25 * ln2 / 4 + 0.25 * math.log(4 / 3) / 16 + 0.75 * ln4 * 9 / 16 + 0.75 * ln2 / 4) / 4
    dice = 1 - 2 * 1.25 / (2.5 + 2)
    assert build_loss("ce")(two_class(z), y).item() == pytest.approx(cross, rel=1e-6)
    assert build_loss("bl", alpha=0.25)(two_class(z), y).item() == pytest.approx(balanced, rel=1e-6)
    assert build_loss("fl", alpha=0.25, gamma=2)(two_class(z), y).item() == pytest.approx(focal, rel=1e-6)
    assert build_loss("dice")(two_class(z), y).item() == pytest.approx(dice, rel=1e-6)
    combined = build_loss("cl", alpha=0.25, gamma=2, beta=0.6)(two_class(z), y).item()
    assert combined == pytest.approx(0.4 * focal + 0.6 * dice, rel=1e-6)


def test_memory_layout_and_chunking_do_not_matter() -> None:
    generator = torch.Generator().manual_seed(9)
    logits = torch.randn(5, 2, 300, 200, generator=generator)
    target = torch.rand(5, 300, 200, generator=generator) < 0.1
    loss = build_loss("cl")
    value, gradient = value_and_gradient(loss, logits, target)
    other, other_gradient = value_and_gradient(
        loss, logits.to(memory_format=torch.channels_last), target.to(torch.uint8)
    )
    assert other == value
    torch.testing.assert_close(other_gradient, gradient, rtol=0, atol=0)
    whole = build_loss("cl")(logits.double(), target).item()
    assert value == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize(
    "options", [{"alpha": 1.1}, {"beta": -0.1}, {"gamma": -1.0}, {"smooth": 0.0}, {"name": "hinge"}]
)
def test_parameters_out_of_range_are_refused(options: dict[str, float | str]) -> None:
    with pytest.raises(InputError, match="loss"):
        build_loss(**({"name": "cl"} | options))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(N, H, W\)"):
        build_loss("cl")(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4))


def test_weighted_cross_entropy_weighs_the_majority_class_alone() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, math.log(3)], [math.log(3), 0.0]])
    target = torch.tensor([0, 1, 1], dtype=torch.uint8)
    losses = [math.log(2), math.log(4 / 3), math.log(4)]
    for weight in (0.0, 0.3, 1.0):
        expected = (weight * losses[0] + losses[1] + losses[2]) / 3
        assert WeightedCrossEntropy(weight)(logits, target).item() == pytest.approx(expected, rel=1e-6)
    plain = torch.nn.functional.cross_entropy(logits, target.long())
    assert WeightedCrossEntropy()(logits, target).item() == pytest.approx(plain.item(), rel=1e-6)
