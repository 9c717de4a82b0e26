"""Networks: sizes, parameters and the function they compute."""

import time
from collections import Counter
from importlib import import_module
from typing import Any

import pytest
import torch

from hounsfield import models
from hounsfield.errors import InputError
from hounsfield.losses import build_loss
from hounsfield.models import pooling
from hounsfield.models.enet import ENet, InitialBlock

SEGMENTATION: dict[str, dict[str, Any]] = {
    "unet": {"base_channels": 8, "depth": 3, "batch_norm": True},
    "segnet": {"base_channels": 8},
    "enet": {"base_channels": 8},
}
NETWORKS = SEGMENTATION | {name: {"base_channels": 8} for name in ("resnet18", "resnet34", "resnet50")}


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


@pytest.mark.parametrize(
    ("name", "published", "tolerance"),
    [("unet", 31.0e6, 0.01), ("segnet", 29.4e6, 0.01), ("enet", 0.36e6, 0.03), ("resnet50", 23.5e6, 0.005)],
)
def test_widths_of_the_papers_give_their_number_of_parameters(name: str, published: float, tolerance: float) -> None:
    network = models.build(name)
    head = models.parameter_count(network.fc) if name == "resnet50" else 0
    assert models.parameter_count(network) - head == pytest.approx(published, rel=tolerance)


def test_segnet_has_the_convolutions_of_vgg16_and_their_mirror() -> None:
    network = models.build("segnet")
    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    vgg16 = [64, 64, 128, 128, 256, 256, 256, *[512] * 6]
    assert [module.out_channels for module in convolutions[:13]] == vgg16
    assert [module.in_channels for module in convolutions[13:]] == vgg16[::-1]
    assert [module.out_channels for module in convolutions[13:]] == [*vgg16[-2::-1], 2]
    assert {module.kernel_size for module in convolutions} == {(3, 3)}
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules()) == 25


def test_enet_has_the_bottlenecks_of_the_paper() -> None:
    network = models.build("enet")
    kinds = Counter(type(module).__name__ for module in network.modules() if type(module).__module__ == ENet.__module__)
    assert kinds == {
        "ENet": 1, "InitialBlock": 1, "Downsampling": 2, "Upsampling": 2, "Branch": 27,
        "Regular": 4 + 2 * 2 + 2 + 1, "Dilated": 2 * 4, "Asymmetric": 2 * 2,
    }  # fmt: skip
    for stage in (network.stage2, network.stage3):
        inner = [
            module for module in stage.modules() if isinstance(module, torch.nn.Conv2d) and module.kernel_size != (1, 1)
        ]
        assert [(module.kernel_size, module.dilation[0]) for module in inner] == [
            ((3, 3), 1), ((3, 3), 2), ((5, 1), 1), ((1, 5), 1), ((3, 3), 4),
            ((3, 3), 1), ((3, 3), 8), ((5, 1), 1), ((1, 5), 1), ((3, 3), 16),
        ]  # fmt: skip
        assert {(module.in_channels, module.out_channels) for module in inner} == {(32, 32)}
    decoder = (network.up4, network.stage4, network.up5, network.stage5)
    assert not any(isinstance(module, torch.nn.PReLU) for part in decoder for module in part.modules())
    slopes = {module.num_parameters for module in network.modules() if isinstance(module, torch.nn.PReLU)}
    assert slopes == {16, 32, 64, 128}
    biased = [name for name, _ in network.named_parameters() if name.endswith("bias") and ".1." not in name]
    norms = {f"{name}.bias" for name, module in network.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    assert set(biased) - norms == {"head.bias"}


def test_enet_drops_whole_channels_little_at_first_and_more_later() -> None:
    network = models.build("enet")
    rates = {name: module.p for name, module in network.named_modules() if isinstance(module, torch.nn.Dropout2d)}
    early = {name for name in rates if name.startswith(("down1", "stage1"))}
    assert {rates[name] for name in early} == {0.01}
    assert {rates[name] for name in rates if name not in early} == {0.1}
    assert len(early) == 5
    assert len(rates) == 27


def test_bottlenecks_of_enet_begin_as_the_identity() -> None:
    stage = models.build("enet", base_channels=8).stage2
    features = torch.rand(2, 64, 8, 8)
    assert torch.equal(stage(features), features)


def test_initial_block_of_enet_joins_convolved_and_pooled_image() -> None:
    block = InitialBlock(16).eval()
    image = torch.rand(2, 1, 8, 12)
    joined: list[torch.Tensor] = []
    block.normalisation.register_forward_pre_hook(lambda _, given: joined.append(given[0]))
    assert block(image).shape == (2, 16, 4, 6)
    assert torch.equal(joined[0][:, 15], image[:, 0].unfold(1, 2, 2).unfold(2, 2, 2).amax((-1, -2)))


def test_a_maximum_returns_to_its_pixel() -> None:
    """Every pixel of a 2x2 cell in turn, in a known place of a larger map."""
    for row, column in ((4, 6), (4, 7), (5, 6), (5, 7)):
        features = torch.zeros(1, 2, 8, 10)
        features[0, 1, row, column] = 3.0
        features[0, 1, 0, 9] = -1.0
        maxima, places = pooling.pool(features)
        assert places[0, 1, 2, 3] == row * 10 + column
        back = pooling.unpool(2 * maxima, places)
        assert back[0, 1, row, column] == 6
        assert back.count_nonzero() == 1


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_unpooling_is_a_placement_in_every_layout_and_precision(
    dtype: torch.dtype, layout: torch.memory_format
) -> None:
    torch.manual_seed(1)
    features = torch.randn(3, 5, 6, 8, dtype=dtype).to(memory_format=layout)
    maxima, places = pooling.pool(features)
    values = torch.randn_like(maxima).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        back = pooling.unpool(values, places)
    assert back.dtype == dtype
    assert back.is_contiguous(memory_format=layout)
    expected = torch.zeros(3, 5, 48, dtype=dtype)
    for image, channel, row, column in torch.cartesian_prod(*map(torch.arange, maxima.shape)).tolist():
        expected[image, channel, places[image, channel, row, column]] = values[image, channel, row, column].detach()
    assert torch.equal(back, expected.reshape(features.shape))
    upstream = torch.randn_like(back)
    back.backward(upstream)
    assert torch.equal(values.grad, upstream.flatten(2).gather(2, places.flatten(2)).reshape(values.shape))


@pytest.mark.parametrize("name", ["segnet", "enet"])
def test_decoder_unpools_to_the_maxima_of_its_own_encoder(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The places that come back are those that were stored, last in first out, and fit the number of channels."""
    module = import_module(f"hounsfield.models.{name}")
    stored: list[torch.Tensor] = []
    used: list[torch.Tensor] = []

    def pool(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maxima, places = pooling.pool(features)
        stored.append(places)
        return maxima, places

    def unpool(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        used.append(places)
        assert values.shape == places.shape
        return pooling.unpool(values, places)

    monkeypatch.setattr(module, "pool", pool)
    monkeypatch.setattr(module, "unpool", unpool)
    models.build(name, base_channels=4)(torch.rand(2, 1, 64, 32))
    assert len(stored) == {"segnet": 5, "enet": 2}[name]
    assert all(a is b for a, b in zip(stored, reversed(used), strict=True))


@pytest.mark.parametrize(
    ("name", "size", "sentence"),
    [
        (
            "segnet",
            (96, 80),
            "segnet: images of 96x80 cannot be halved 5 times: use a size that is a multiple of 32, or",
        ),
        ("enet", (100, 96), "enet: images of 100x96 cannot be halved 3 times: use a size that is a multiple of 8"),
        ("resnet18", (31, 200), "resnet: images of 31x200 are too small: use at least 32x32"),
        ("unet", (64, 0), "unet: images of 64x0 cannot be halved 2 times"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(name: str, size: tuple[int, int], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        models.build(name, **NETWORKS[name])(torch.rand(1, 1, *size))


@pytest.mark.parametrize(
    ("name", "size"),
    [("unet", (4, 12)), ("segnet", (32, 96)), ("enet", (8, 24)), ("enet", (96, 128)), ("resnet50", (32, 33))],
)
def test_every_size_that_the_strides_allow_is_taken(name: str, size: tuple[int, int]) -> None:
    network = models.build(name, **NETWORKS[name]).eval()
    assert network(torch.rand(2, 1, *size)).shape == ((2, 2, *size) if name in SEGMENTATION else (2, 2))


@pytest.mark.parametrize("name", NETWORKS)
def test_widths_that_cannot_be_built_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"base_channels is 0\b.*, expected"):
        models.build(name, base_channels=0)
    if name == "enet":
        with pytest.raises(InputError, match="base_channels is 6, expected a positive multiple of 4"):
            models.build(name, base_channels=6)


@pytest.mark.parametrize("name", NETWORKS)
def test_half_precision_and_channels_last_stay_through_all_layers(name: str) -> None:
    """Layers answer in bfloat16 and channels-last what they answer in float32, and gradients reach every parameter.

    Layer by layer, for rounding moves maxima between nearly equal pixels, and the logits with them.
    """
    torch.manual_seed(2)
    network = models.build(name, **NETWORKS[name]).to(memory_format=torch.channels_last)
    images = torch.rand(4, 1, 64, 64)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
    with torch.no_grad():
        network.train()(images)
    network.eval()
    computing = (torch.nn.Conv2d, torch.nn.ConvTranspose2d, torch.nn.BatchNorm2d, torch.nn.Linear)
    left: list[str] = []
    watching = True

    def watch(module: torch.nn.Module, given: Any, output: Any) -> None:
        nonlocal watching
        if not watching:
            return
        features = output[0] if isinstance(output, tuple) else output
        if features.dtype != torch.bfloat16:
            left.append(f"{module} in {features.dtype}")
        if features.ndim == 4 and not features.is_contiguous(memory_format=torch.channels_last):
            left.append(f"{module} in strides {features.stride()}")
        if isinstance(module, computing):
            watching = False
            with torch.autocast("cpu", enabled=False):
                exact = module(given[0].float())
            watching = True
            if (features.float() - exact).norm() > 0.01 * exact.norm():
                left.append(f"{module} off by {(features.float() - exact).norm() / exact.norm()}")

    for module in network.modules():
        module.register_forward_hook(watch)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        network(images)
    assert not left
    watching = False
    network.train()
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(images)
    (logits.float() * torch.randn(logits.shape)).sum().backward()
    without = [key for key, parameter in network.named_parameters() if not parameter.grad.isfinite().all()]
    assert not without
    dead = [key for key, parameter in network.named_parameters() if not parameter.grad.any()]
    assert not dead


@pytest.mark.parametrize("name", NETWORKS)
def test_evaluation_repeats_itself_bit_by_bit(name: str) -> None:
    torch.manual_seed(3)
    network = models.build(name, **NETWORKS[name]).eval()
    images = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(images), network(images))
    if name == "enet":
        network.train()
        assert not torch.equal(network(images), network(images))


@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_can_be_tried_without_pixels(name: str) -> None:
    network = models.build(name, **NETWORKS[name]).eval().to("meta")
    assert network(torch.empty(3, 1, 64, 96, device="meta")).shape == (
        (3, 2, 64, 96) if name in SEGMENTATION else (3, 2)
    )


@pytest.mark.parametrize("name", SEGMENTATION)
def test_compiler_captures_the_whole_network(name: str) -> None:
    network = models.build(name, **SEGMENTATION[name]).eval()
    images = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(torch.compile(network, backend="eager", fullgraph=True)(images), network(images))


@pytest.mark.parametrize("name", SEGMENTATION)
def test_learns_a_few_squares_by_heart(name: str) -> None:
    """Four images with a square and bars as bright as it, which only the shape tells apart."""
    torch.manual_seed(4)
    images, truth = torch.full((4, 1, 64, 64), 0.3), torch.zeros(4, 64, 64, dtype=torch.bool)
    for index, (row, column, side) in enumerate([(8, 30, 12), (40, 6, 9), (20, 20, 16), (33, 44, 10)]):
        truth[index, row : row + side, column : column + side] = True
        images[index, 0, 60:62, 5:50] = 0.6
    images[:, 0][truth] = 0.6
    images += 0.05 * torch.randn_like(images)
    network = models.build(name, **SEGMENTATION[name]).to(memory_format=torch.channels_last)
    loss, optimiser = build_loss("dice"), torch.optim.Adam(network.parameters(), 1e-2)
    dice, started = 0.0, time.monotonic()
    for step in range(200):
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = network.train()(images)
        loss(logits, truth).backward()
        optimiser.step()
        if step % 10 == 9:
            with torch.no_grad():
                predicted = network.eval()(images).argmax(dim=1).bool()
            dice = float(2 * (predicted & truth).sum() / (predicted.sum() + truth.sum()))
            if dice > 0.9:
                break
    assert dice > 0.9, f"{dice} after {time.monotonic() - started:.0f} s"


def test_unknown_networks_and_options_are_refused() -> None:
    with pytest.raises(InputError, match="expected one of unet"):
        models.build("vgg")
    with pytest.raises(InputError, match="do not fit"):
        models.build("unet", width=3)


@pytest.mark.parametrize("architecture", ["unet", "segnet", "enet"])
def test_prior_is_where_the_network_starts(architecture: str) -> None:
    torch.manual_seed(0)
    network = models.build(architecture, base_channels=8)
    models.set_prior(network, 0.02)
    network.head.weight.data.zero_()
    with torch.no_grad():
        probability = network(torch.rand(1, 1, 64, 64)).softmax(1)[:, 1]
    torch.testing.assert_close(probability, torch.full_like(probability, 0.02))


def test_segnet_of_fewer_levels_leaves_out_the_deepest() -> None:
    whole, part = models.build("segnet", base_channels=4), models.build("segnet", base_channels=4, depth=3)
    assert [name for name in part.state_dict() if name.startswith("encoder")] == [
        name for name in whole.state_dict() if name.startswith(("encoder.0", "encoder.1", "encoder.2"))
    ]
    assert part(torch.rand(1, 1, 8, 8)).shape == (1, 2, 8, 8)
    with pytest.raises(InputError, match="2 to 5 levels"):
        models.build("segnet", depth=6)
