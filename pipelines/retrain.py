"""Pipeline retrain: keeps a growing dataset up to date and trains a challenger when no registered model saw it."""

from typing import NamedTuple

from kfp import dsl

from hounsfield.components.compare_models.config import Config as Compare
from hounsfield.components.describe import described
from hounsfield.components.plan_retraining.component import TRAINING, plan_retraining
from hounsfield.components.plan_retraining.config import Config as Plan
from hounsfield.components.register_model.config import Config as Register
from hounsfield.components.train_l3.component import train_l3
from hounsfield.components.train_unet.component import train_unet
from hounsfield.components.tune.component import tune
from hounsfield.components.tune.config import Config as Tune
from hounsfield.components.update_dataset.component import update_dataset
from hounsfield.components.update_dataset.config import Config as Update
from hounsfield.components.window_convert.component import window_convert
from hounsfield.components.window_convert.config import Config as Window
from hounsfield.pipelines.parts import inputs_of, judged


class Outputs(NamedTuple):
    """Latest version of the dataset, and `retrain`, or `current` when a registered model has seen that version."""

    version: str
    decision: str


@dsl.pipeline(name="retrain", display_name="Retrain when the data has changed")
@described(Tune, Window, Compare, Register, Plan, Update, training=TRAINING)
def retrain(
    data: str = "",
    cases: str = "",
    dataset: str = "",
    task: str = "lung-tumour",
    roi: str = "",
    label_value: int = 0,
    min_slices: int = 3,
    allow_empty_labels: bool = False,
    keep_absent: bool = True,
    width: float = 0.0,
    level: float = 0.0,
    size: int = 0,
    test_fraction: float = 0.2,
    val_fraction: float = 0.15,
    split_seed: int = 0,
    max_prevalence: float = 0.0,
    training: str = "",
    trials: int = 0,
    strategy: str = "bayesian",
    space: str = "",
    objective: str = "",
    repeats: int = 1,
    search_seed: int = 0,
    start_from_given: bool = True,
    grid: str = "",
    backend: str = "auto",
    algorithm: str = "bayesianoptimization",
    parallel_trials: int = 2,
    trial_hours: float = 24.0,
    keep_experiment: bool = True,
    checkpoints: str = "",
    policy: str = "newer",
    margin_average_precision: float = 0.02,
    margin_dice: float = 0.02,
    margin_slice_error_mm: float = 1.0,
    margin_detection_rate: float = 0.02,
    min_patients: int = 10,
    subgroup_margin: float = 1.0,
    min_subgroup_patients: int = 10,
    resamples: int = 10000,
    bootstrap_seed: int = 0,
    model_name: str = "",
    experiment: str = "",
    tracking_uri: str = "",
    code_version: str = "",
) -> Outputs:
    """Ingest what is new and, if anything changed, window, search on request, train, compare and register."""
    given = dict(locals())
    updated = update_dataset(**inputs_of(update_dataset, given))
    updated.set_caching_options(False)
    planned = plan_retraining(version=updated.output, **inputs_of(plan_retraining, given))
    planned.set_caching_options(False)
    with dsl.If(planned.outputs["Output"] == "retrain", name="changed"):
        windowed = window_convert(store=planned.outputs["store"], **inputs_of(window_convert, given))
        given |= {
            "store": planned.outputs["store"],
            "slices": windowed.outputs["slices"],
            "training": planned.outputs["training"],
        }
        tuned = tune(**inputs_of(tune, given))
        given["tuned"] = tuned.outputs["Output"]
        of_training = {name: given[name] for name in ("slices", "training", "tuned", "checkpoints", "code_version")}
        with dsl.If(task == "lung-tumour", name="lung-tumour"):
            trained = train_unet(**of_training)
            judged(given | {"model": trained.outputs["model"]})
        with dsl.If(task == "l3-slice", name="l3-slice"):
            trained = train_l3(**of_training)
            judged(given | {"model": trained.outputs["model"]})
    return Outputs(updated.output, planned.outputs["Output"])
