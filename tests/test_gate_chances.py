"""How often the gate lets equal challengers through and refuse those that fail a subgroup."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from hounsfield.components.compare_models.config import Config
from hounsfield.evaluation.bootstrap import MeanFigure
from hounsfield.evaluation.gate import Decision, Measure, Rules, decide

RUNS, GROUP, RESAMPLES = 200, 20, 1000
DEFAULTS, WIDER = Config(), Config(subgroup_margin=2.0)
Bools = npt.NDArray[np.bool_]
Trial = Callable[[np.random.Generator, int, Bools, float], list[Measure]]


def dice_trial(spread: float) -> Trial:
    """Two figures per patient, whose differences of two trainings have this SD; only the headline is harmed."""

    def made(generator: np.random.Generator, patients: int, harmed: Bools, margins: float) -> list[Measure]:
        found = []
        for name in ("precision", "dice"):
            margin = DEFAULTS.margin_dice
            change = generator.normal(0, spread, patients)
            if name == "precision":
                change -= margins * margin * harmed
            found.append(
                Measure(name, name, MeanFigure(np.stack([change, np.zeros(patients)]), np.ones(patients)), margin, True)
            )
        return found

    return made


def slice_trial(generator: np.random.Generator, patients: int, harmed: Bools, margins: float) -> list[Measure]:
    """Errors differ by a SD of 5 mm in a third of the patients; each model detects 97 %, and misses on its own."""
    margin = DEFAULTS.margin_slice_error_mm
    change = generator.normal(0, 5, patients) * (generator.random(patients) < 1 / 3) + margins * margin * harmed
    detected = (generator.random((2, patients)) < 0.97).astype(np.float64)
    ones = np.ones(patients)
    return [
        Measure("error", "error", MeanFigure(np.stack([change, np.zeros(patients)]), ones), margin, False, "mm", 2),
        Measure("rate", "rate", MeanFigure(detected, ones), DEFAULTS.margin_detection_rate, True, rate=True),
    ]


def trials(make: Trial, patients: int, margins: float, settings: Config = DEFAULTS) -> list[Decision]:
    """Decisions under the settings, with seven subgroups; that of the first `GROUP` patients loses `margins`."""
    rules = Rules(
        settings.policy, settings.min_patients, settings.subgroup_margin, settings.min_subgroup_patients, RESAMPLES, 0
    )
    harmed = np.arange(patients) < GROUP
    found = []
    for seed in range(RUNS):
        generator = np.random.default_rng(seed)
        groups = [
            {
                "tumour site": str(generator.integers(2)),
                "slice thickness": str(generator.choice(3, p=[0.3, 0.4, 0.3])),
                "manufacturer": "A" if own else "B",
            }
            for own in harmed
        ]
        measures = make(generator, patients, harmed, margins)
        found.append(decide(measures, [True] * patients, groups, (1, 1), rules))
    return found


def share(values: list[bool]) -> float:
    return sum(values) / len(values)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "patients", "settings", "least"),
    [
        (dice_trial(0.05), 40, WIDER, 0.6),
        (dice_trial(0.05), 100, WIDER, 0.92),
        (dice_trial(0.05), 100, DEFAULTS, 0.74),
        (dice_trial(0.075), 100, WIDER, 0.68),
        (slice_trial, 100, WIDER, 0.6),
    ],
    ids=["Dice 40", "Dice 100", "Dice 100, defaults", "Dice, wide, 100", "slice 100"],
)
def test_equal_challenger_mostly_becomes_champion(make: Trial, patients: int, settings: Config, least: float) -> None:
    assert share([item.promote for item in trials(make, patients, 0, settings)]) >= least


@pytest.mark.slow
@pytest.mark.parametrize("make", [dice_trial(0.05), dice_trial(0.1), slice_trial], ids=["Dice", "Dice, wide", "slice"])
def test_challenger_that_fails_a_subgroup_is_refused(make: Trial) -> None:
    found = trials(make, 100, 3)
    assert share([not item.promote for item in found]) >= 0.95
    blamed = [any("manufacturer A" in sentence for sentence in item.reasons) for item in found]
    assert share(blamed) >= 0.9
