"""Networks: sizes, parameters and the function they compute."""

import pytest
import torch

from hounsfield import models
from hounsfield.errors import InputError


def test_default_unet_is_that_of_the_paper() -> None:
    network = models.build("unet")
    # Two 3x3 convolutions a level, 2x2 up-convolutions and the 1x1 head, with biases.
    widths = [64, 128, 256, 512, 1024]
    double = lambda a, b: 9 * a * b + b + 9 * b * b + b  # noqa: E731
    expected = sum(double(a, b) for a, b in zip([1, *widths], widths, strict=False))
    expected += sum(4 * 2 * b * b + b + double(2 * b, b) for b in widths[:-1]) + 64 * 2 + 2
    assert models.parameter_count(network) == expected
    assert expected == pytest.approx(31.0e6, rel=0.002)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_unet_keeps_the_size_and_sees_its_context(batch_norm: bool) -> None:
    torch.manual_seed(0)
    network = models.build("unet", base_channels=4, depth=4, batch_norm=batch_norm).eval()
    image = torch.rand(2, 1, 48, 64, requires_grad=True)
    logits = network(image)
    assert logits.shape == (2, 2, 48, 64)
    logits[0, :, 24, 32].sum().backward()
    seen = image.grad[0, 0].abs() > 0
    assert seen[24, 32]
    assert seen.any(dim=1).sum() > 40
    assert not image.grad[1].any()


def test_unet_refuses_a_size_that_cannot_be_halved() -> None:
    with pytest.raises(InputError, match="multiple of 8"):
        models.build("unet", base_channels=2, depth=4)(torch.rand(1, 1, 60, 64))


@pytest.mark.parametrize(
    ("name", "parameters"), [("resnet18", 11_176_512), ("resnet34", 21_284_672), ("resnet50", 23_508_032)]
)
def test_resnets_have_the_published_number_of_parameters(name: str, parameters: int) -> None:
    """Published totals with three input channels and without the last layer."""
    network = models.build(name)
    head = network.fc.weight.numel() + network.fc.bias.numel()
    assert models.parameter_count(network) - head + 2 * 64 * 49 == parameters
    assert network(torch.rand(2, 1, 64, 48)).shape == (2, 2)


def test_resnet_parameters_have_the_published_names() -> None:
    names = set(models.build("resnet50").state_dict())
    assert {
        "conv1.weight", "bn1.running_mean", "layer1.0.downsample.0.weight", "layer1.0.downsample.1.bias",
        "layer2.3.conv3.weight", "layer3.5.bn2.num_batches_tracked", "layer4.2.bn3.weight", "fc.weight", "fc.bias",
    } <= names  # fmt: skip
    assert len(names) == 320
    assert models.build("resnet50").layer2[0].conv2.stride == (2, 2)


def test_unknown_networks_and_options_are_refused() -> None:
    with pytest.raises(InputError, match="expected one of unet"):
        models.build("vgg")
    with pytest.raises(InputError, match="do not fit"):
        models.build("unet", width=3)
