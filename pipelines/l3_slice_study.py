"""Pipeline l3-slice-study: cross-validation of the search with and without the design parameters against imbalance."""

from typing import NamedTuple

from kfp import dsl

from hounsfield.components.describe import described
from hounsfield.components.dicom_ingest.config import Config as Ingest
from hounsfield.components.evaluate_pr_ap.component import evaluate_pr_ap
from hounsfield.components.evaluate_pr_ap.config import Config as Evaluate
from hounsfield.components.plan_experiment.component import plan_experiment
from hounsfield.components.plan_experiment.config import Config as Plan
from hounsfield.components.plan_ingest.config import Config as Shards
from hounsfield.components.summarise_experiment.component import summarise_experiment
from hounsfield.components.summarise_experiment.config import Config as Summarise
from hounsfield.components.train_l3.component import train_l3
from hounsfield.components.train_l3.config import Config as Train
from hounsfield.components.tune.component import tune
from hounsfield.components.tune.config import Config as Tune
from hounsfield.components.window_convert.config import Config as Window
from hounsfield.pipelines.inputs import json_text
from hounsfield.pipelines.parts import converted, inputs_of


class Outputs(NamedTuple):
    """The experiment's tables, figures and report."""

    summary: dsl.Artifact


@dsl.pipeline(name="l3-slice-study", display_name="L3 slice: control and proposed, cross-validated")
@described(Evaluate, Ingest, Shards, Window, Train, Tune, Plan, Summarise)
def l3_slice_study(
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
    val_fraction: float = 0.15,
    split_seed: int = 0,
    folds: int = 5,
    max_prevalence: float = 0.0,
    arms: str = "control,proposed",
    seeds: int = 1,
    first_seed: int = 0,
    trials: int = 30,
    objective: str = "",
    search_seed: int = 0,
    start_from_given: bool = True,
    backend: str = "auto",
    algorithm: str = "bayesianoptimization",
    parallel_trials: int = 2,
    trial_hours: float = 24.0,
    keep_experiment: bool = True,
    validation: str = "val",
    refit: bool = True,
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
    threshold: float = 0.5,
    precision: str = "auto",
    vertebra_mm: float = 30.0,
    data_name: str = "your data",
    checkpoints: str = "",
    data_version: str = "",
    code_version: str = "",
) -> Outputs:
    """Compare the search with and without over-sampling and class weight in every fold: the L3 paper's Table 2."""
    given = dict(locals())
    _, slices = converted("l3-slice", given)
    given["slices"] = slices
    planned = plan_experiment(experiment="l3-slice-study", **inputs_of(plan_experiment, given))
    training = {name: given[name] for name in Train.model_fields if name in given and name != "refit"}
    with dsl.ParallelFor(planned.outputs["Output"]) as run:
        searched = {"task": "l3-slice", "space": run.run_name, "fold": run.fold}
        tuned = tune(training=json_text(**training), **searched, **inputs_of(tune, given))
        final = {"run_name": run.run_name, "fold": run.fold, "seed": run.seed, "tuned": tuned.outputs["Output"]}
        trained = train_l3(**final, **inputs_of(train_l3, given))
        evaluated = evaluate_pr_ap(
            slices=slices,
            model=trained.outputs["model"],
            fold=run.fold,
            vertebra_mm=vertebra_mm,
            code_version=code_version,
        )
    summarised = summarise_experiment(
        models=dsl.Collected(trained.outputs["model"]),
        evaluations=dsl.Collected(evaluated.outputs["evaluation"]),
        **inputs_of(summarise_experiment, given),
    )
    return Outputs(summarised.outputs["summary"])
