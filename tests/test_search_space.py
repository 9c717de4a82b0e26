"""Search spaces: canonical settings, and what Optuna and Katib's Bayesian service make of them."""

import json
import re
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from optuna.samplers import RandomSampler
from scipy import stats
from skopt import Optimizer
from skopt.space import Categorical, Integer, Real

from hounsfield.components.train_l3.config import Config as L3Config
from hounsfield.components.train_unet.config import Config as UNetConfig
from hounsfield.errors import InputError
from hounsfield.search.space import GRIDS, SPACES, Choice, Linear, Log, Space, space_for

TABLE_1 = [
    {"loss": "bl", "alpha": 0.75}, {"loss": "fl", "alpha": 0.75, "gamma": 5}, {"loss": "fl", "alpha": 0.75, "gamma": 2},
    {"loss": "cl", "alpha": 0.75, "gamma": 5, "beta": 0.6}, {"loss": "cl", "alpha": 0.75, "gamma": 2, "beta": 0.3},
    {"loss": "bl", "alpha": 0.25}, {"loss": "fl", "alpha": 0.25, "gamma": 4},
    {"loss": "cl", "alpha": 0.25, "gamma": 4, "beta": 0.7},
]  # fmt: skip
EVERY_SPACE = pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)


def katib_dimension(feasible: dict[str, Any]) -> Any:
    """As Katib's skopt service builds it: every double log-uniform, whatever its distribution says."""
    if feasible["type"] == "double":
        return Real(float(feasible["min"]), float(feasible["max"]), prior="log-uniform", name=feasible["name"])
    if feasible["type"] == "int":
        return Integer(int(feasible["min"]), int(feasible["max"]), name=feasible["name"])
    return Categorical(feasible["list"], name=feasible["name"])


def assigned(space: Space, point: list[Any]) -> dict[str, str]:
    """As Katib hands a suggestion to a trial: texts by name."""
    return {item["name"]: str(value) for item, value in zip(space.feasible(), point, strict=True)}


@pytest.mark.parametrize("winner", TABLE_1)
def test_joint_space_and_grids_contain_every_winner_of_table_1(winner: dict[str, Any]) -> None:
    assert space_for("lung-tumour").canonical(winner) == winner
    for name, value in winner.items():
        assert name == "loss" or value in GRIDS[name]


@pytest.mark.parametrize(
    ("setting", "canonical"),
    [
        ({"loss": "bl", "alpha": 0.3, "gamma": 2.5, "beta": 0.4}, {"loss": "bl", "alpha": 0.3}),
        ({"loss": "fl", "alpha": 0.3, "gamma": 2.5, "beta": 0.4}, {"loss": "fl", "alpha": 0.3, "gamma": 2.5}),
        ({"loss": "fl", "alpha": 0.3, "gamma": 0.0, "beta": 0.4}, {"loss": "bl", "alpha": 0.3}),
        ({"loss": "cl", "alpha": 0.3, "gamma": 0.0, "beta": 0.0}, {"loss": "bl", "alpha": 0.3}),
        ({"loss": "cl", "alpha": 0.3, "gamma": 2.5, "beta": 1.0}, {"loss": "cl", "beta": 1.0}),
        (
            {"loss": "cl", "alpha": 0.15000000000000002, "gamma": 2.5, "beta": 0.30000000000000004},
            {"loss": "cl", "alpha": 0.15, "gamma": 2.5, "beta": 0.3},
        ),
    ],
)
def test_parameters_without_effect_do_not_make_another_setting(
    setting: dict[str, Any], canonical: dict[str, Any]
) -> None:
    assert space_for("lung-tumour").canonical(setting) == canonical


def test_equal_settings_have_equal_losses() -> None:
    """The rule behind `canonical`, from the losses themselves."""
    import torch

    from hounsfield.losses import build_loss

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2, 8, 8, generator=generator)
    target = (torch.rand(3, 8, 8, generator=generator) < 0.3).long()
    space, random = space_for("lung-tumour"), np.random.default_rng(0)
    for _ in range(200):
        full = {item.name: _random_value(item, random) for item in space.parameters}
        if random.random() < 0.4:
            full["gamma"], full["beta"] = 0.0, float(random.integers(0, 2))
        kept = {"alpha": 0.35, "gamma": 3.5, "beta": 0.15} | space.canonical(full)
        one, other = (
            build_loss(s["loss"], s["alpha"], s["gamma"], s["beta"], 1e-6)(logits, target) for s in (full, kept)
        )
        torch.testing.assert_close(one, other)


def _random_value(item: Any, random: np.random.Generator) -> Any:
    if isinstance(item, Choice):
        return str(random.choice(item.values))
    return item.at(int(random.integers(0, item.steps + 1)))


def test_correction_parameters_include_zero_and_control_fixes_them() -> None:
    proposed, control = space_for("l3-slice"), space_for("l3-slice", "control")
    assert (proposed["oversampling_rate"].nearest(0), proposed["oversampling_rate"].nearest(0.25)) == (0, 0.25)
    assert (proposed["class_weight"].nearest(0), proposed["class_weight"].nearest(1)) == (0, 1)
    assert len(proposed.parameters) == 7
    assert set(proposed.names) - set(control.names) == {"oversampling_rate", "class_weight"}
    assert dict(control.fixed) == {"oversampling_rate": 0, "class_weight": 1}


@EVERY_SPACE
def test_every_value_is_one_that_the_training_takes(space: Space) -> None:
    config = UNetConfig if space.task == "lung-tumour" else L3Config
    for item in space.parameters:
        ends = item.values if isinstance(item, Choice) else (item.low, item.high)
        for value in ends:
            config.model_validate({item.name: value})
    config.model_validate(dict(space.fixed))


@EVERY_SPACE
def test_values_outside_are_refused(space: Space) -> None:
    for item in space.parameters:
        for wrong in ["dice"] if isinstance(item, Choice) else [item.low - 1, item.high * 1.5, "many", float("nan")]:
            with pytest.raises(InputError, match=item.name):
                item.nearest(wrong)
    with pytest.raises(InputError, match="in steps of"):
        Linear("alpha", 0.0, 1.0, 0.1).nearest(0.25)


def test_unknown_space_is_named() -> None:
    with pytest.raises(InputError, match="lung-tumour has no search space control: expected joint"):
        space_for("lung-tumour", "control")


@EVERY_SPACE
def test_feasible_spaces_are_texts_that_katib_takes(space: Space) -> None:
    described = space.feasible()
    assert json.loads(json.dumps(described)) == described
    for item, parameter in zip(described, space.parameters, strict=True):
        assert item["type"] == ("double" if isinstance(parameter, Log) else item["type"])
        for text in item.get("list", [item.get("min"), item.get("max")]):
            assert isinstance(text, str)
        if item["type"] != "categorical":
            assert re.fullmatch(r"\d+(\.\d+)?", item["min"]), "no exponent, which YAML readers disagree about"
            assert Decimal(item["min"]) < Decimal(item["max"])
        if item["type"] == "double":
            assert float(item["min"]) > 0, "the service's log-uniform prior refuses 0"


@EVERY_SPACE
def test_katibs_service_runs_on_the_encoded_space(space: Space) -> None:
    dimensions = [katib_dimension(item) for item in space.feasible()]
    optimiser = Optimizer(dimensions, base_estimator="GP", n_initial_points=4, acq_func="gp_hedge", random_state=1)
    for number in range(8):
        point = optimiser.ask()
        parameters = space.decode(assigned(space, point))
        assert parameters.keys() <= {*space.names, *space.fixed}
        optimiser.tell(point, float(number % 3))


@EVERY_SPACE
def test_decoded_samples_of_katib_cover_the_ranges_evenly(space: Space) -> None:
    """On each parameter's own scale: uniform over grid points and choices, log-uniform over logarithmic ranges."""
    count = 3000
    points = Optimizer([katib_dimension(i) for i in space.feasible()], random_state=5).space.rvs(count, random_state=5)
    columns = list(zip(*points, strict=True))
    for item, column in zip(space.parameters, columns, strict=True):
        values = [item.decode(str(value)) for value in column]
        _assert_even(item, values)


@EVERY_SPACE
def test_optuna_covers_the_ranges_evenly(space: Space) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=RandomSampler(seed=3))
    asked = [study.ask(space.distributions()).params for _ in range(1500)]
    for item in space.parameters:
        _assert_even(item, [item.nearest(params[item.name]) for params in asked])


def _assert_even(item: Any, values: list[Any]) -> None:
    if isinstance(item, Log):
        shares = [np.log(value / item.low) / np.log(item.high / item.low) for value in values]
        assert stats.kstest(shares, "uniform").pvalue > 1e-3
        return
    possible = list(item.values) if isinstance(item, Choice) else [item.at(step) for step in range(item.steps + 1)]
    assert set(values) == set(possible), "every value can come, the ends (such as 0) too"
    assert stats.chisquare([values.count(value) for value in possible]).pvalue > 1e-3


def test_decoding_goes_back_to_real_values() -> None:
    space = space_for("l3-slice")
    texts = {"l2": "0.00001", "learning_rate": "0.000999", "batch_size": "79", "gradient_threshold": "19",
             "gradient_threshold_method": "l2norm", "oversampling_rate": "0", "class_weight": "1140"}  # fmt: skip
    assert space.decode(texts) == {
        "l2": 1e-5, "learning_rate": 0.000999, "batch_size": 64, "gradient_threshold": 1,
        "gradient_threshold_method": "l2norm", "oversampling_rate": 0.0, "class_weight": 0.57,
    }  # fmt: skip
    control = space_for("l3-slice", "control")
    fixed = control.decode({name: texts[name] for name in control.names})
    assert (fixed["oversampling_rate"], fixed["class_weight"]) == (0, 1)
    with pytest.raises(InputError, match="expected an integer from 0 to 2019"):
        space.decode(texts | {"class_weight": "2020"})
    with pytest.raises(InputError, match="expected"):
        space.decode({"l2": "0.001"})
