"""Pipeline l3-slice: CT series with L3 masks in, registered slice classifier out."""

from typing import NamedTuple

from kfp import dsl

from hounsfield.components.describe import described
from hounsfield.components.dicom_ingest.config import Config as Ingest
from hounsfield.components.evaluate_pr_ap.component import evaluate_pr_ap
from hounsfield.components.register_model.component import register_model
from hounsfield.components.register_model.config import Config as Register
from hounsfield.components.train_l3.component import train_l3
from hounsfield.components.train_l3.config import Config as Train
from hounsfield.components.tune.component import tune
from hounsfield.components.tune.config import Config as Tune
from hounsfield.components.window_convert.config import Config as Window
from hounsfield.pipelines.inputs import json_text
from hounsfield.pipelines.parts import slice_set


class Outputs(NamedTuple):
    """The search of parameters, trained model, its evaluation on unseen patients, and its URI in the registry."""

    tuning: dsl.Artifact
    model: dsl.Model
    evaluation: dsl.Artifact
    model_uri: str


@dsl.pipeline(name="l3-slice", display_name="L3 slice: DICOM to registered ResNet")
@described(Ingest, Window, Train, Tune, Register)
def l3_slice(
    data: str = "",
    cases: str = "",
    roi: str = "",
    label_value: int = 0,
    min_slices: int = 3,
    allow_empty_labels: bool = False,
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
    checkpoints: str = "",
    model_name: str = "",
    experiment: str = "",
    tracking_uri: str = "",
    data_version: str = "",
    code_version: str = "",
) -> Outputs:
    """Find the L3 slice: ingest, window, search parameters, train, evaluate on unseen patients, register."""
    slices = slice_set("l3-slice", locals())
    training = {
        "architecture": architecture,
        "base_channels": base_channels,
        "initial_weights": initial_weights,
        "learning_rate": learning_rate,
        "learning_rate_schedule": learning_rate_schedule,
        "l2": l2,
        "batch_size": batch_size,
        "gradient_threshold": gradient_threshold,
        "gradient_threshold_method": gradient_threshold_method,
        "oversampling_rate": oversampling_rate,
        "class_weight": class_weight,
        "epochs": epochs,
        "augment": augment,
        "keep": keep,
        "refit": refit,
        "validation": validation,
        "threshold": threshold,
        "seed": seed,
        "precision": precision,
    }
    tuned = tune(
        slices=slices,
        training=json_text(**training),
        task="l3-slice",
        trials=trials,
        space=space,
        objective=objective,
        repeats=repeats,
        search_seed=search_seed,
        start_from_given=start_from_given,
        experiment=experiment,
        tracking_uri=tracking_uri,
        checkpoints=checkpoints,
        code_version=code_version,
    )
    trained = train_l3(
        slices=slices,
        **training,
        tuned=tuned.outputs["Output"],
        checkpoints=checkpoints,
        code_version=code_version,
    )
    evaluated = evaluate_pr_ap(slices=slices, model=trained.outputs["model"], code_version=code_version)
    registered = register_model(
        model=trained.outputs["model"],
        evaluation=evaluated.outputs["evaluation"],
        model_name=model_name,
        experiment=experiment,
        tracking_uri=tracking_uri,
        kfp_run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        code_version=code_version,
    )
    registered.set_caching_options(False)
    return Outputs(
        tuned.outputs["tuning"], trained.outputs["model"], evaluated.outputs["evaluation"], registered.output
    )
