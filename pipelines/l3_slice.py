"""Pipeline l3-slice: CT series with L3 masks in, registered slice classifier out."""

from typing import NamedTuple

from kfp import dsl

from hounsfield.components.compare_models.config import Config as Compare
from hounsfield.components.describe import described
from hounsfield.components.dicom_ingest.config import Config as Ingest
from hounsfield.components.plan_ingest.config import Config as Shards
from hounsfield.components.register_model.config import Config as Register
from hounsfield.components.train_l3.component import train_l3
from hounsfield.components.train_l3.config import Config as Train
from hounsfield.components.tune.component import tune
from hounsfield.components.tune.config import Config as Tune
from hounsfield.components.window_convert.config import Config as Window
from hounsfield.pipelines.inputs import json_text
from hounsfield.pipelines.parts import converted, inputs_of, judged


class Outputs(NamedTuple):
    """The search of parameters, trained model, its evaluation on unseen patients, and its URI in the registry."""

    tuning: dsl.Artifact
    model: dsl.Model
    evaluation: dsl.Artifact
    model_uri: str


@dsl.pipeline(name="l3-slice", display_name="L3 slice: DICOM to registered ResNet")
@described(Ingest, Shards, Window, Train, Tune, Compare, Register)
def l3_slice(
    data: str = "",
    cases: str = "",
    roi: str = "",
    label_value: int = 0,
    min_slices: int = 3,
    allow_empty_labels: bool = False,
    series_per_shard: int = 0,
    width: float = 0.0,
    level: float = 0.0,
    size: int = 0,
    test_fraction: float = 0.2,
    val_fraction: float = 0.15,
    split_seed: int = 0,
    max_prevalence: float = 0.0,
    architecture: str = "resnet50",
    base_channels: int = 64,
    initial_weights: str = "",
    learning_rate: float = 3e-4,
    learning_rate_schedule: str = "constant",
    l2: float = 1e-4,
    batch_size: int = 32,
    gradient_threshold: float = 3.0,
    gradient_threshold_method: str = "global-l2norm",
    oversampling_rate: float = 0.0,
    class_weight: float = 1.0,
    epochs: int = 10,
    augment: bool = False,
    keep: str = "best",
    refit: bool = False,
    validation: str = "val",
    threshold: float = 0.5,
    seed: int = 0,
    precision: str = "auto",
    trials: int = 0,
    space: str = "",
    objective: str = "",
    repeats: int = 1,
    search_seed: int = 0,
    start_from_given: bool = True,
    backend: str = "auto",
    algorithm: str = "bayesianoptimization",
    parallel_trials: int = 2,
    trial_hours: float = 24.0,
    keep_experiment: bool = True,
    checkpoints: str = "",
    policy: str = "newer",
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
    data_version: str = "",
    code_version: str = "",
) -> Outputs:
    """Find the L3 slice: ingest, window, search, train, evaluate on unseen patients, compare, register."""
    given = dict(locals())
    given["store"], given["slices"] = converted("l3-slice", given)
    training = {name: given[name] for name in Train.model_fields if name in given}
    tuned = tune(training=json_text(**training), task="l3-slice", **inputs_of(tune, given))
    trained = train_l3(tuned=tuned.outputs["Output"], **inputs_of(train_l3, given))
    model = given["model"] = trained.outputs["model"]
    evaluation, registered = judged(given)
    return Outputs(tuned.outputs["tuning"], model, evaluation, registered)
