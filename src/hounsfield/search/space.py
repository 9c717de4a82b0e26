"""The search spaces, each parameter declared once with its scale, and what optimisers see of them.

A linear parameter lies on a grid that includes both ends, so it may include 0. Katib's Bayesian service gives every
`double` a log-uniform prior whatever its distribution says, so only logarithmic parameters are doubles there: a linear
one is an integer that counts parts of its steps and is decoded on the way back.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hounsfield.errors import InputError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Value = str | int | float
Parameters = dict[str, Value]
ROUNDING = 1e-9
PARTS = 20
"""Integers that stand for one value of a linear parameter in Katib. Its service draws a fraction of the range and
rounds, so the outermost two integers come half as often as the others; with one integer per value, so would a 0."""


@dataclass(frozen=True)
class Linear:
    """Evenly spread over `low`, `low + step`, ..., `high`."""

    name: str
    low: float
    high: float
    step: float

    @property
    def steps(self) -> int:
        """Number of steps from `low` to `high`."""
        return round((self.high - self.low) / self.step)

    def at(self, step: int) -> Value:
        """Value after `step` steps, rounded to the decimals of the grid."""
        return float(Decimal(repr(self.low)) + step * Decimal(repr(self.step)))

    def nearest(self, value: Any) -> Value:
        """The grid's value at `value`.

        Raises:
            InputError: `value` is not a number on the grid.
        """
        number = _number(self.name, value)
        step = round((number - self.low) / self.step)
        if not 0 <= step <= self.steps or abs(float(self.at(step)) - number) > ROUNDING * max(1.0, abs(self.high)):
            raise InputError(
                f"{self.name} is {value!r}: expected {self.low:g} to {self.high:g} in steps of {self.step:g}"
            )
        return self.at(step)

    def distribution(self) -> "BaseDistribution":
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high, step=self.step)

    def feasible(self) -> dict[str, Any]:
        return {"name": self.name, "type": "int", "min": "0", "max": str((self.steps + 1) * PARTS - 1)}

    def decode(self, text: str) -> Value:
        part, last = round(_number(self.name, text)), (self.steps + 1) * PARTS - 1
        if not 0 <= part <= last:
            raise InputError(f"{self.name} is assigned {text}: expected an integer from 0 to {last}")
        return self.at(part // PARTS)


@dataclass(frozen=True)
class Integer(Linear):
    """A linear parameter whose values are integers."""

    low: int
    high: int
    step: int = 1

    def at(self, step: int) -> Value:
        return self.low + step * self.step

    def distribution(self) -> "BaseDistribution":
        from optuna.distributions import IntDistribution

        return IntDistribution(self.low, self.high, step=self.step)


@dataclass(frozen=True)
class Log:
    """Continuous from `low` (above 0) to `high`, evenly spread over its logarithm."""

    name: str
    low: float
    high: float

    def nearest(self, value: Any) -> Value:
        """`value` as a float; a rounding error beyond an end becomes that end.

        Raises:
            InputError: `value` is not a number in the range.
        """
        number = _number(self.name, value)
        if not self.low * (1 - ROUNDING) <= number <= self.high * (1 + ROUNDING):
            raise InputError(f"{self.name} is {value!r}: expected {self.low:g} to {self.high:g}")
        return min(max(number, self.low), self.high)

    def distribution(self) -> "BaseDistribution":
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high, log=True)

    def feasible(self) -> dict[str, Any]:
        return {"name": self.name, "type": "double", "min": plain(self.low), "max": plain(self.high)}

    def decode(self, text: str) -> Value:
        return self.nearest(text)


@dataclass(frozen=True)
class Choice:
    """One of `values`, without an order."""

    name: str
    values: tuple[str, ...]

    def nearest(self, value: Any) -> Value:
        """`value` itself.

        Raises:
            InputError: `value` is none of the choices.
        """
        if value not in self.values:
            raise InputError(f"{self.name} is {value!r}: expected {', '.join(self.values)}")
        return str(value)

    def distribution(self) -> "BaseDistribution":
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)

    def feasible(self) -> dict[str, Any]:
        return {"name": self.name, "type": "categorical", "list": list(self.values)}

    def decode(self, text: str) -> Value:
        return self.nearest(text)


Parameter = Linear | Log | Choice


@dataclass(frozen=True)
class Space:
    """The parameters that a search varies, and those that it holds fixed."""

    task: str
    name: str
    parameters: tuple[Parameter, ...]
    fixed: Mapping[str, Value] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Parameter:
        return next(parameter for parameter in self.parameters if parameter.name == name)

    @property
    def names(self) -> list[str]:
        return [parameter.name for parameter in self.parameters]

    def canonical(self, values: Mapping[str, Any]) -> Parameters:
        """`values` on the grids and without those that change nothing: two settings that train alike are equal.

        Raises:
            InputError: a value outside of its range.
        """
        kept = without_effect_removed(values)
        return {item.name: item.nearest(kept[item.name]) for item in self.parameters if item.name in kept}

    def complete(self, values: Mapping[str, Value]) -> Parameters:
        """Canonical `values` with neutral ones in place of those that were removed."""
        return {name: values[name] if name in values else NEUTRAL[name] for name in self.names}

    def given(self, training: Mapping[str, Any]) -> Parameters | None:
        """The parameters of a training's configuration in this space; None when they lie outside of it."""
        try:
            return self.canonical({name: training[name] for name in self.names})
        except InputError:
            return None

    def distributions(self) -> "dict[str, BaseDistribution]":
        """For Optuna: every parameter on its own scale."""
        return {item.name: item.distribution() for item in self.parameters}

    def feasible(self) -> list[dict[str, Any]]:
        """For Katib: name, type (double, int, categorical) and min and max or list, all values as text."""
        return [item.feasible() for item in self.parameters]

    def decode(self, assignments: Mapping[str, str]) -> Parameters:
        """Canonical parameters, with the fixed ones, from the texts that Katib assigned to `feasible` parameters.

        Raises:
            InputError: a parameter is missing, unknown or out of its range.
        """
        if assignments.keys() != set(self.names):
            raise InputError(f"assigned are {sorted(assignments)}: expected {sorted(self.names)}")
        values = {item.name: item.decode(assignments[item.name]) for item in self.parameters}
        return dict(self.fixed) | self.canonical(values)


def plain(number: float) -> str:
    """`number` without an exponent: YAML readers take `1e-05` for a text or a number, depending on their version."""
    return format(Decimal(repr(number)), "f")


NEUTRAL: Parameters = {"alpha": 0.5, "gamma": 0.0, "beta": 0.0}
"""Values under which a loss with the parameter is the loss without it."""


def without_effect_removed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out loss parameters that change nothing.

    cl with beta 0 is fl, fl with gamma 0 is bl; bl has no gamma and fl no beta; cl with beta 1 is Dice alone, which has
    neither alpha nor gamma.
    """
    kept = dict(values)
    if kept.get("loss") == "cl" and kept.get("beta") == 0:
        kept["loss"] = "fl"
    if kept.get("loss") == "fl" and kept.get("gamma") == 0:
        kept["loss"] = "bl"
    useless = {"bl": ("gamma", "beta"), "fl": ("beta",)}.get(str(kept.get("loss")), ())
    if kept.get("loss") == "cl" and kept.get("beta") == 1:
        useless = ("alpha", "gamma")
    return {name: value for name, value in kept.items() if name not in useless}


LOSS_PARAMETERS = (
    Choice("loss", ("bl", "fl", "cl")),
    Linear("alpha", 0.05, 0.95, 0.05),
    Linear("gamma", 0.0, 5.0, 0.5),
    Linear("beta", 0.0, 1.0, 0.1),
)
OPTIMISER_PARAMETERS = (
    Log("l2", 1e-5, 1e-2),
    Log("learning_rate", 1e-5, 1e-2),
    Integer("batch_size", 16, 64, 16),
    Integer("gradient_threshold", 1, 6),
    Choice("gradient_threshold_method", ("l2norm", "global-l2norm")),
)
CORRECTION_PARAMETERS = (Linear("oversampling_rate", 0.0, 0.25, 0.005), Linear("class_weight", 0.0, 1.0, 0.01))

SPACES = (
    Space("lung-tumour", "joint", LOSS_PARAMETERS),
    Space("l3-slice", "proposed", OPTIMISER_PARAMETERS + CORRECTION_PARAMETERS),
    Space("l3-slice", "control", OPTIMISER_PARAMETERS, {"oversampling_rate": 0.0, "class_weight": 1.0}),
)
"""The first space of a task is its own."""

GRIDS: dict[str, Sequence[float]] = {
    "alpha": (0.1, 0.25, 0.5, 0.75, 0.9),
    "gamma": (1.0, 2.0, 3.0, 4.0, 5.0),
    "beta": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
}
"""Of the greedy search; they contain every winner of the lung-tumour paper's Table 1."""


def space_for(task: str, name: str = "") -> Space:
    """The space `name` of `task`; the task's own for an empty name.

    Raises:
        InputError: the task has no space of that name.
    """
    known = {space.name: space for space in SPACES if space.task == task}
    if name and name not in known:
        raise InputError(f"{task} has no search space {name}: expected {' or '.join(known)}")
    return known[name] if name else next(iter(known.values()))


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{name} is {value!r}: expected a number")
    return number
