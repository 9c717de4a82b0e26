"""Pipeline lung-tumour: CT series with tumour masks in, registered segmentation model out."""

from typing import NamedTuple

from kfp import dsl

from hounsfield.components.describe import described
from hounsfield.components.dicom_ingest.config import Config as Ingest
from hounsfield.components.evaluate_pr_ap.component import evaluate_pr_ap
from hounsfield.components.register_model.component import register_model
from hounsfield.components.register_model.config import Config as Register
from hounsfield.components.train_unet.component import train_unet
from hounsfield.components.train_unet.config import Config as Train
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


@dsl.pipeline(name="lung-tumour", display_name="Lung tumour: DICOM to registered U-Net")
@described(Ingest, Window, Train, Tune, Register)
def lung_tumour(
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
    architecture: str = "unet",
    base_channels: int = 0,
    depth: int = 5,
    batch_norm: bool = False,
    loss: str = "cl",
    alpha: float = 0.25,
    gamma: float = 4.0,
    beta: float = 0.7,
    prior: float = 0.01,
    learning_rate: float = 1e-3,
    adam_beta2: float = 0.999,
    learning_rate_schedule: str = "constant",
    batch_size: int = 30,
    epochs: int = 100,
    negatives_per_positive: float = 0.0,
    augment: bool = False,
    keep: str = "best",
    refit: bool = False,
    validation: str = "val",
    threshold: float = 0.5,
    seed: int = 0,
    precision: str = "auto",
    trials: int = 0,
    strategy: str = "bayesian",
    space: str = "",
    objective: str = "",
    repeats: int = 1,
    search_seed: int = 0,
    start_from_given: bool = True,
    grid: str = "",
    checkpoints: str = "",
    model_name: str = "",
    experiment: str = "",
    tracking_uri: str = "",
    data_version: str = "",
    code_version: str = "",
) -> Outputs:
    """Segment lung tumours: ingest, window, search parameters, train, evaluate on unseen patients, register."""
    slices = slice_set("lung-tumour", locals())
    training = {
        "architecture": architecture,
        "base_channels": base_channels,
        "depth": depth,
        "batch_norm": batch_norm,
        "loss": loss,
        "alpha": alpha,
        "gamma": gamma,
        "beta": beta,
        "prior": prior,
        "learning_rate": learning_rate,
        "adam_beta2": adam_beta2,
        "learning_rate_schedule": learning_rate_schedule,
        "batch_size": batch_size,
        "epochs": epochs,
        "negatives_per_positive": negatives_per_positive,
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
        task="lung-tumour",
        trials=trials,
        strategy=strategy,
        space=space,
        objective=objective,
        repeats=repeats,
        search_seed=search_seed,
        start_from_given=start_from_given,
        grid=grid,
        experiment=experiment,
        tracking_uri=tracking_uri,
        checkpoints=checkpoints,
        code_version=code_version,
    )
    trained = train_unet(
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
