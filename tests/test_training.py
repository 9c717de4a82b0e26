"""Training steps: data order, determinism, metrics, and the model that comes out."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from slice_sets import SIDE, make_slices

from hounsfield import models
from hounsfield.components.train_l3.config import Config as L3Config
from hounsfield.components.train_l3.run import run as run_l3
from hounsfield.components.train_unet.config import Config as UNetConfig
from hounsfield.components.train_unet.run import run as run_unet
from hounsfield.data.model_store import read_card, read_history
from hounsfield.data.slice_set import DETECTION, SEGMENTATION, SliceSet
from hounsfield.errors import InputError, TrainingError
from hounsfield.inference import load_network
from hounsfield.losses import build_loss
from hounsfield.training.augment import one_of_four, small_affine, warp
from hounsfield.training.batches import Batches, Sampling
from hounsfield.training.probe import faster_precision
from hounsfield.training.trainee import Plan, Trainee, clip_gradients, learning_rate_factor

SMALL = {"base_channels": 4, "depth": 2, "batch_size": 5, "learning_rate": 0.01, "precision": "fp32"}
KATIB_METRIC = re.compile(r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)")


@pytest.fixture
def tumours(tmp_path: Path) -> Path:
    return make_slices(tmp_path / "tumours", SEGMENTATION)


@pytest.fixture
def vertebrae(tmp_path: Path) -> Path:
    return make_slices(tmp_path / "vertebrae", DETECTION)


def weights(model: Path) -> dict[str, torch.Tensor]:
    return load_file(model / "weights.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


class TestBatches:
    def test_order_depends_on_seed_and_epoch_alone(self, tumours: Path) -> None:
        rows = SliceSet(tumours).rows("train")
        first, again = Batches(tumours, rows, 5, seed=1), Batches(tumours, rows, 5, seed=1)
        again.epoch = 3
        list(again)
        again.epoch = 0
        assert first.order()[0].tolist() == again.order()[0].tolist()
        assert sorted(first.order()[0]) == rows
        again.epoch = 1
        assert first.order()[0].tolist() != again.order()[0].tolist()
        assert first.order()[0].tolist() != Batches(tumours, rows, 5, seed=2).order()[0].tolist()

    def test_content_is_that_of_the_slice_set(self, tumours: Path) -> None:
        slices = SliceSet(tumours)
        batches = Batches(tumours, slices.rows("train"), 5, seed=1)
        order, _ = batches.order()
        images, masks = zip(*((i.clone(), m.clone()) for i, m in batches), strict=True)
        assert [len(i) for i in images] == [5, 5, 4, 4]
        for row, image, mask in zip(order, torch.cat(images), torch.cat(masks), strict=True):
            np.testing.assert_allclose(image[0].numpy(), slices.image(row) / 255, atol=1e-7)
            np.testing.assert_array_equal(mask.numpy(), slices.mask(row))

    def test_processes_share_every_batch(self, tumours: Path) -> None:
        rows = SliceSet(tumours).rows("train")
        whole = [images.clone() for images, _ in Batches(tumours, rows, 6, seed=1)]
        shares = [[i.clone() for i, _ in Batches(tumours, rows, 6, seed=1, rank=rank, world=4)] for rank in range(4)]
        for number, batch in enumerate(whole):
            assert [len(share[number]) for share in shares] == [2, 2, 1, 1]
            assert torch.equal(torch.cat([share[number] for share in shares]), batch)
        with pytest.raises(InputError, match="fewer devices"):
            Batches(tumours, rows, 3, seed=1, world=4)

    def test_oversampling_adds_augmented_positive_slices(self, vertebrae: Path) -> None:
        slices = SliceSet(vertebrae)
        rows = slices.rows("train")
        negatives = sum(not slices.index[row].positive for row in rows)
        batches = Batches(vertebrae, rows, 4, seed=1, sampling=Sampling(oversampling=0.25))
        order, added = batches.order()
        assert added.sum() == round(0.25 * negatives) == 3
        assert sorted(order[~added]) == rows
        assert all(slices.index[row].positive for row in order[added])
        images, targets = zip(*((i.clone(), t.clone()) for i, t in batches), strict=True)
        assert torch.cat(targets).tolist() == [slices.index[row].positive for row in order]
        for row, is_added, image in zip(order, added, torch.cat(images), strict=True):
            assert np.allclose(image[0].numpy(), slices.image(row), atol=1e-6) != is_added

    def test_negatives_can_be_limited_and_change_by_epoch(self, tumours: Path) -> None:
        slices = SliceSet(tumours)
        rows = slices.rows("train")
        batches = Batches(tumours, rows, 4, seed=1, sampling=Sampling(negatives_per_positive=0.5))
        drawn = []
        for batches.epoch in range(6):
            order, _ = batches.order()
            assert {row for row in order if slices.index[row].positive} == {r for r in rows if slices.index[r].positive}
            drawn.append({row for row in order if not slices.index[row].positive})
            assert len(drawn[-1]) == 3
        assert len(set().union(*drawn)) > 3

    def test_oversampling_without_positives_is_refused(self, tmp_path: Path, vertebrae: Path) -> None:
        rows = [row for row in SliceSet(vertebrae).rows("train") if not SliceSet(vertebrae).index[row].positive]
        with pytest.raises(InputError, match="at least one training slice"):
            Batches(vertebrae, rows, 4, seed=1, sampling=Sampling(oversampling=0.1))


class TestAugmentation:
    def test_mask_moves_with_its_image(self) -> None:
        mask = torch.zeros(64, 1, 48, 48)
        mask[:, :, 20:32, 12:30] = 1
        for maps in (small_affine(64, np.random.default_rng(0)), one_of_four(64, np.random.default_rng(0))):
            image, moved = warp(mask, maps, "bilinear"), warp(mask, maps, "nearest")
            assert set(moved.unique().tolist()) == {0.0, 1.0}
            assert ((image > 0.5) != (moved > 0.5)).float().mean() < 0.01
            assert (moved != mask).flatten(1).any(dim=1).float().mean() > 0.8

    def test_four_kinds_occur(self) -> None:
        maps = one_of_four(200, np.random.default_rng(0))
        identity = torch.eye(2, 3)
        reflections = (maps[:, 0, 0] == -1).sum().item()
        translations = (maps[:, :, 2] != 0).any(dim=1).sum().item()
        shears = ((maps[:, 0, 1] != 0) & (maps[:, 1, 0] == 0)).sum().item()
        rotations = (maps[:, 1, 0] != 0).sum().item()
        assert reflections + translations + shears + rotations == 200
        assert min(reflections, translations, shears, rotations) > 30
        assert not (maps == identity).all(dim=(1, 2)).any()


class TestSteps:
    def test_same_seed_same_weights(self, tumours: Path, tmp_path: Path) -> None:
        config = UNetConfig(epochs=2, batch_norm=True, augment=True, **SMALL)
        for name in ("one", "two"):
            run_unet(config, tumours, tmp_path / name)
        run_unet(config.model_copy(update={"seed": 1}), tumours, tmp_path / "other")
        assert_same_weights(tmp_path / "one", tmp_path / "two")
        other = weights(tmp_path / "other")
        assert any(not torch.equal(value, other[name]) for name, value in weights(tmp_path / "one").items())
        assert not list(tmp_path.glob("*.checkpoints"))

    def test_equals_a_plain_loop(self, tmp_path: Path) -> None:
        slices = make_slices(tmp_path / "set", SEGMENTATION, "train train test")
        run_unet(UNetConfig(epochs=3, seed=5, **SMALL), slices, tmp_path / "model")

        torch.manual_seed(5)
        network = models.build("unet", base_channels=4, depth=2).to(memory_format=torch.channels_last)
        models.set_prior(network, 0.01)
        optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
        loss = build_loss("cl")
        batches = Batches(slices, SliceSet(slices).rows("train"), 5, seed=5)
        for batches.epoch in range(3):
            for images, target in batches:
                optimiser.zero_grad()
                loss(network(images), target).backward()
                optimiser.step()
        for name, value in weights(tmp_path / "model").items():
            torch.testing.assert_close(value, network.state_dict()[name], rtol=1e-4, atol=1e-6)

    def test_model_card_and_metrics_are_those_of_the_best_epoch(self, tumours: Path, tmp_path: Path, capfd) -> None:  # type: ignore[no-untyped-def]
        from sklearn.metrics import f1_score, precision_score, recall_score

        run_unet(UNetConfig(epochs=6, **SMALL), tumours, tmp_path / "model")
        out = capfd.readouterr()
        network, slices = load_network(tmp_path / "model"), SliceSet(tumours)
        rows = slices.rows("val")
        images = torch.from_numpy(slices.gather("image", rows)).float() / 255
        truth = slices.gather("mask", rows).ravel()
        predicted = network.foreground_logits(images).numpy().ravel() > 0
        card = read_card(tmp_path / "model")
        for name, score in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
            assert card.metrics[f"val_{name}"] == pytest.approx(score(truth, predicted, zero_division=0), abs=2e-3)
        assert card.task == SEGMENTATION
        assert card.training_patients == 3
        assert card.image_size == [SIDE, SIDE]
        assert card.slice_set_hash == "a"
        assert card.precision == "fp32"
        history = read_history(tmp_path / "model")
        assert [record["epoch"] for record in history] == [1, 2, 3, 4, 5, 6]
        assert max(record["val_f1"] for record in history) == card.metrics["val_f1"] == (
            history[card.best_epoch - 1]["val_f1"]
        )  # fmt: skip
        printed = {match[1]: float(match[2]) for match in map(KATIB_METRIC.fullmatch, out.out.splitlines()) if match}
        assert printed["val_f1"] == pytest.approx(card.metrics["val_f1"], abs=1e-4)
        assert "progress train-unet 24/24 epoch 6/6 loss=" in out.out
        assert not out.err
        assert not re.search("GPU|TPU|warning|tip", out.out, re.IGNORECASE)

    def test_l3_trains_with_every_option_and_learns(self, vertebrae: Path, tmp_path: Path) -> None:
        config = L3Config(
            architecture="resnet18", epochs=8, batch_size=8, learning_rate=1e-3, oversampling_rate=0.25,
            class_weight=0.5, gradient_threshold_method="l2norm", learning_rate_schedule="one-cycle", l2=1e-3,
            precision="bf16",
        )  # fmt: skip
        run_l3(config, vertebrae, tmp_path / "model")
        card, history = read_card(tmp_path / "model"), read_history(tmp_path / "model")
        assert card.precision == "bf16"
        assert card.classes == ["other", "L3"]
        assert history[-1]["train_loss"] < history[0]["train_loss"]
        assert {"train_accuracy", "val_f1", "val_loss"} <= history[0].keys()
        assert {value.dtype for value in weights(tmp_path / "model").values()} <= {torch.float32, torch.int64}

    def test_nan_is_reported_with_its_place(self, tumours: Path, tmp_path: Path) -> None:
        config = UNetConfig(epochs=2, **(SMALL | {"learning_rate": 1e30}))
        with pytest.raises(TrainingError, match=r"epoch 1, step \d: use a lower learning rate"):
            run_unet(config, tumours, tmp_path / "model")
        assert not (tmp_path / "model").exists()

    def test_wrong_input_is_refused(self, tumours: Path, vertebrae: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="expected one for lung-tumour"):
            run_unet(UNetConfig(**SMALL), vertebrae, tmp_path / "model")
        with pytest.raises(InputError, match="multiple of 32"):
            run_unet(UNetConfig(**(SMALL | {"depth": 6})), tumours, tmp_path / "model")
        empty = make_slices(tmp_path / "empty", SEGMENTATION, "val test")
        with pytest.raises(InputError, match="no training slice"):
            run_unet(UNetConfig(**SMALL), empty, tmp_path / "model")
        assert not (tmp_path / "model").exists()


def test_probe_leaves_the_network_alone() -> None:
    network = models.build("unet", base_channels=8, depth=3, batch_norm=True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert faster_precision(network, 8, (64, 64), torch.device("cpu")) in ("fp32", "bf16")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_gradient_clipping_by_tensor_and_as_a_whole() -> None:
    def gradients(clipping: str) -> list[list[float]]:
        network = torch.nn.Linear(2, 1)
        network.weight.grad, network.bias.grad = torch.tensor([[3.0, 4.0]]), torch.tensor([0.5])
        clip_gradients(network, 1.0, clipping)
        return [network.weight.grad.flatten().tolist(), network.bias.grad.tolist()]

    assert gradients("l2norm")[0] == pytest.approx([0.6, 0.8], rel=1e-5)
    assert gradients("l2norm")[1] == pytest.approx([0.5])
    norm = 25.25**0.5
    assert gradients("global-l2norm")[0] == pytest.approx([3 / norm, 4 / norm], rel=1e-5)
    assert gradients("global-l2norm")[1] == pytest.approx([0.5 / norm], rel=1e-5)


def test_learning_rate_schedules() -> None:
    assert {learning_rate_factor("constant", step, 100) for step in range(100)} == {1.0}
    cosine = [learning_rate_factor("cosine", step, 100) for step in range(100)]
    assert cosine[0] == 1
    assert cosine[50] == pytest.approx(0.5)
    assert cosine == sorted(cosine, reverse=True)
    cycle = [learning_rate_factor("one-cycle", step, 100) for step in range(100)]
    assert max(cycle) == cycle[10] == 1
    assert cycle[:11] == sorted(cycle[:11])
    assert 0 < cycle[-1] < 0.01


def test_l2_is_coupled_with_the_gradient(tumours: Path) -> None:
    plan = Plan(epochs=1, batch_size=5, learning_rate=0.1, weight_decay=0.5)
    network = torch.nn.Linear(3, 1, bias=False)
    before, gradient = network.weight.detach().clone(), torch.tensor([[0.3, -0.2, 0.1]])
    optimiser = Trainee(network, build_loss("ce"), SliceSet(tumours), plan).optimiser()
    decoupled = torch.nn.Parameter(before.clone())
    other = torch.optim.AdamW([decoupled], lr=0.1, weight_decay=0.5)
    moment, square, expected = torch.zeros_like(before), torch.zeros_like(before), before.clone()
    for step in (1, 2):
        network.weight.grad, decoupled.grad = gradient.clone(), gradient.clone()
        optimiser.step()
        other.step()
        total = gradient + 0.5 * expected
        moment, square = 0.9 * moment + 0.1 * total, 0.999 * square + 0.001 * total**2
        expected = expected - 0.1 * (moment / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
    torch.testing.assert_close(network.weight.detach(), expected, rtol=1e-5, atol=1e-7)
    assert (network.weight - decoupled).abs().max() > 1e-3
