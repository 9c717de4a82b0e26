"""Pipeline lung-tumour: CT series with tumour masks in, registered segmentation model out."""

from typing import NamedTuple

from kfp import dsl

from hounsfield.components.describe import described
from hounsfield.components.dicom_ingest.config import Config as Ingest
from hounsfield.components.evaluate_pr_ap.component import evaluate_pr_ap
from hounsfield.components.plan_ingest.config import Config as Shards
from hounsfield.components.register_model.component import register_model
from hounsfield.components.register_model.config import Config as Register
from hounsfield.components.train_unet.component import train_unet
from hounsfield.components.train_unet.config import Config as Train
from hounsfield.components.tune.component import tune
from hounsfield.components.tune.config import Config as Tune
from hounsfield.components.window_convert.config import Config as Window
from hounsfield.pipelines.inputs import json_text
from hounsfield.pipelines.parts import inputs_of, slice_set


class Outputs(NamedTuple):
    """The search of parameters, trained model, its evaluation on unseen patients, and its URI in the registry."""

    tuning: dsl.Artifact
    model: dsl.Model
    evaluation: dsl.Artifact
    model_uri: str


@dsl.pipeline(name="lung-tumour", display_name="Lung tumour: DICOM to registered U-Net")
@described(Ingest, Shards, Window, Train, Tune, Register)
def lung_tumour(
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
    backend: str = "auto",
    algorithm: str = "bayesianoptimization",
    parallel_trials: int = 2,
    trial_hours: float = 24.0,
    keep_experiment: bool = True,
    checkpoints: str = "",
    model_name: str = "",
    experiment: str = "",
    tracking_uri: str = "",
    data_version: str = "",
    code_version: str = "",
) -> Outputs:
    """Segment lung tumours: ingest, window, search parameters, train, evaluate on unseen patients, register."""
    given = dict(locals())
    slices = given["slices"] = slice_set("lung-tumour", given)
    training = {name: given[name] for name in Train.model_fields if name in given}
    tuned = tune(training=json_text(**training), task="lung-tumour", **inputs_of(tune, given))
    trained = train_unet(tuned=tuned.outputs["Output"], **inputs_of(train_unet, given))
    model = given["model"] = trained.outputs["model"]
    evaluated = evaluate_pr_ap(slices=slices, model=model, code_version=code_version)
    registered = register_model(
        evaluation=evaluated.outputs["evaluation"],
        kfp_run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        **inputs_of(register_model, given),
    )
    registered.set_caching_options(False)
    return Outputs(tuned.outputs["tuning"], model, evaluated.outputs["evaluation"], registered.output)
