"""Published ResNet weights as initial ones: key names, formats, the first convolution and what is refused."""

import pickle
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from s3_server import ACCESS, BUCKET, SECRET, client, free_ports
from safetensors.torch import save_file

from hounsfield.errors import ArtifactError, InputError
from hounsfield.models.resnet import Basic, Bottleneck, ResNet
from hounsfield.training.initial_weights import load_initial_weights

CHILDREN = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool")


def published(channels: int = 3, classes: int = 1000, seed: int = 0, block: Any = Bottleneck) -> ResNet:
    """A narrow ResNet as torchvision's are: three input channels, a thousand classes, running statistics of its own."""
    torch.manual_seed(seed)
    network = ResNet(block, (3, 4, 6, 3), base_channels=8, channels=channels, classes=classes)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            module.num_batches_tracked.fill_(77)
    return network.eval()


def features(network: ResNet, images: torch.Tensor) -> torch.Tensor:
    """Input of the head."""
    taken: list[torch.Tensor] = []
    hook = network.fc.register_forward_pre_hook(lambda _, given: taken.append(given[0]))
    with torch.no_grad():
        network(images)
    hook.remove()
    return taken[0]


def torchvision_names(network: ResNet) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


def radimagenet_names(network: ResNet) -> dict[str, torch.Tensor]:
    """Of `backbone = nn.Sequential(*list(resnet.children())[:-1])`, torchvision's children in their order."""
    backbone = torch.nn.Sequential(*(getattr(network, name) for name in CHILDREN))
    return {f"backbone.{key}": value.clone() for key, value in backbone.state_dict().items()}


def parallel_names(network: ResNet) -> dict[str, torch.Tensor]:
    return {f"module.{key}": value.clone() for key, value in network.state_dict().items()}


def wrapped_parallel_backbone(network: ResNet) -> dict[str, torch.Tensor]:
    return {f"module.{key}": value for key, value in radimagenet_names(network).items()}


@pytest.mark.parametrize(
    "names", [torchvision_names, radimagenet_names, parallel_names, wrapped_parallel_backbone], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_features_are_those_of_three_equal_channels(tmp_path: Path, names: Any, suffix: str) -> None:
    other = published()
    weights, file = names(other), tmp_path / f"weights.{suffix}"
    save_file(weights, file) if suffix == "safetensors" else torch.save(weights, file)
    network = published(channels=1, classes=2, seed=1)
    head = network.fc.weight.clone()
    grey = torch.rand(3, 1, 64, 48)
    before = features(network, grey)
    assert load_initial_weights(network, str(file)) == len(network.state_dict()) - 2
    expected = features(other, grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(features(network, grey), expected, rtol=1e-4, atol=1e-5)
    assert (before - expected).abs().max() > 0.1
    assert torch.equal(network.fc.weight, head)
    assert network.bn1.num_batches_tracked == 77


def test_published_full_size_has_all_the_names_that_are_looked_for(tmp_path: Path) -> None:
    """ResNet50 at its published width, stored in half precision inside a training checkpoint."""
    other = ResNet(Bottleneck, (3, 4, 6, 3), channels=3, classes=1000)
    state = {key: value.half() if value.is_floating_point() else value for key, value in other.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "checkpoint.pth")
    network = ResNet(Bottleneck, (3, 4, 6, 3))
    assert load_initial_weights(network, (tmp_path / "checkpoint.pth").as_uri()) == 318
    assert network.layer3[5].conv2.weight.dtype == torch.float32
    torch.testing.assert_close(network.layer3[5].conv2.weight, other.layer3[5].conv2.weight, rtol=1e-3, atol=1e-6)
    summed = state["conv1.weight"].double().sum(1, keepdim=True).float()
    assert torch.equal(network.conv1.weight, summed)


def test_weights_of_one_channel_and_old_files_are_taken_as_they_are(tmp_path: Path) -> None:
    """Weights of before batches were counted, in PyTorch's format of before zip archives."""
    other = published(channels=1)
    weights = {key: value for key, value in other.state_dict().items() if "num_batches" not in key}
    torch.save(weights, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    network = published(channels=1, classes=2, seed=1)
    assert load_initial_weights(network, str(tmp_path / "old.pth")) == len(weights) - 2
    assert torch.equal(network.conv1.weight, other.conv1.weight)


class Opens:
    """What a hostile pickle would do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    weights = {**torchvision_names(published()), "extra": Opens(tmp_path / "was-here")}
    torch.save(weights, tmp_path / "weights.pt", _use_new_zipfile_serialization=zipped)
    network = published(channels=1)
    before = network.conv1.weight.clone()
    with pytest.raises(InputError, match="would run code when read: save the network's state_dict"):
        load_initial_weights(network, str(tmp_path / "weights.pt"))
    assert not (tmp_path / "was-here").exists()
    assert torch.equal(network.conv1.weight, before)


def test_whole_pickled_network_is_refused(tmp_path: Path) -> None:
    torch.save(published(), tmp_path / "network.pt")
    with pytest.raises(InputError, match="would run code"):
        load_initial_weights(published(channels=1), str(tmp_path / "network.pt"))


def without(key: str) -> dict[str, torch.Tensor]:
    weights = torchvision_names(published())
    del weights[key]
    return weights


def changed(key: str, value: Any) -> dict[str, Any]:
    return {**torchvision_names(published()), key: value}


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (lambda: without("layer2.3.bn2.running_var"), "layer2.3.bn2.running_var is missing"),
        (lambda: torchvision_names(published(block=Basic)), r"layer1.0.conv3.weight, .* and \d+ more are missing"),
        (lambda: {"a": torch.ones(2), "b": torch.ones(3)}, "conv1.weight, bn1.weight, bn1.bias and .* are missing"),
        (
            lambda: changed("layer1.0.conv2.weight", torch.ones(8, 8, 5, 5)),
            "layer1.0.conv2.weight is 8x8x5x5 for 8x8x3x3",
        ),
        (lambda: changed("conv1.weight", torch.ones(8, 4, 7, 7)), "conv1.weight is 8x4x7x7 for 8x1x7x7"),
        (lambda: changed("bn1.bias", torch.full((8,), torch.nan)), "bn1.bias is not finite: fetch the file again"),
        (lambda: changed("layer3.6.conv1.weight", torch.ones(3)), "layer3.6.conv1.weight is unknown here"),
        (lambda: changed("module.conv1.weight", torch.ones(3)), "hold conv1.weight twice"),
        (lambda: changed("epoch", 3), "epoch is no tensor"),
        (lambda: [torch.ones(3)], "hold a list, expected a state dict"),
        (lambda: {}, "hold a dict, expected a state dict"),
    ],
)
def test_weights_that_do_not_fit_are_named_and_nothing_is_taken(tmp_path: Path, weights: Any, sentence: str) -> None:
    torch.save(weights(), tmp_path / "weights.pt")
    network = published(channels=1)
    before = torchvision_names(network)
    with pytest.raises(InputError, match=sentence):
        load_initial_weights(network, str(tmp_path / "weights.pt"))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    network = published(channels=1)
    torch.save(torchvision_names(published()), tmp_path / "whole.pt")
    save_file(torchvision_names(published()), tmp_path / "whole.safetensors")
    contents = {
        "text": b"<html>404 Not found</html>",
        "empty": b"",
        "half.pt": (tmp_path / "whole.pt").read_bytes()[:5000],
        "half.safetensors": (tmp_path / "whole.safetensors").read_bytes()[:5000],
        "numbers.pkl": pickle.dumps({"conv1.weight": 3}, protocol=2)[:9],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name} (cannot be read: expected a complete safetensors|hold)"):
            load_initial_weights(network, str(tmp_path / name))


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("https://example.org/resnet50.pth", "nothing is downloaded while training: fetch the file first"),
        ("http://example.org/resnet50.pth", "nothing is downloaded while training: fetch the file first"),
        ("hf://model/weights", "nothing is downloaded while training: fetch the file first"),
        ("/absent/weights.pt", "/absent/weights.pt cannot be read: No such file"),
        ("file:///absent/weights.pt", "cannot be read: No such file"),
        ("file://elsewhere/weights.pt", "name the host elsewhere: expected file:///path"),
        ("s3://bucket", "expected s3://bucket/key"),
        ("s3:///key", "expected s3://bucket/key"),
    ],
)
def test_addresses_that_cannot_be_read_are_refused(source: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load_initial_weights(published(channels=1), source)


def test_object_storage_at_the_endpoint_of_the_environment(
    s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    other = published()
    save_file(torchvision_names(other), tmp_path / "weights.safetensors")
    client(s3_endpoint).upload_file(str(tmp_path / "weights.safetensors"), BUCKET, "resnet/a b.safetensors")
    network = published(channels=1, seed=1)
    load_initial_weights(network, f"s3://{BUCKET}/resnet/a b.safetensors")
    assert torch.equal(network.layer4[2].conv3.weight, other.layer4[2].conv3.weight)
    with pytest.raises(ArtifactError, match=f"s3://{BUCKET}/resnet/absent does not exist"):
        load_initial_weights(network, f"s3://{BUCKET}/resnet/absent")


def test_endpoint_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_ports(1)[0]}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with pytest.raises(InputError, match="check AWS_ENDPOINT_URL"):
        load_initial_weights(published(channels=1), "s3://weights/x.pt")
