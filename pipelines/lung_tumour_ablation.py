"""Pipeline lung-tumour-ablation: every network with every loss on the same patients, and their figures side by side."""

from typing import NamedTuple

from kfp import dsl

from hounsfield.components.describe import described
from hounsfield.components.dicom_ingest.config import Config as Ingest
from hounsfield.components.evaluate_pr_ap.component import evaluate_pr_ap
from hounsfield.components.plan_experiment.component import plan_experiment
from hounsfield.components.plan_experiment.config import Config as Plan
from hounsfield.components.plan_ingest.config import Config as Shards
from hounsfield.components.summarise_experiment.component import summarise_experiment
from hounsfield.components.summarise_experiment.config import Config as Summarise
from hounsfield.components.train_unet.component import train_unet
from hounsfield.components.train_unet.config import Config as Train
from hounsfield.components.window_convert.config import Config as Window
from hounsfield.pipelines.inputs import json_text
from hounsfield.pipelines.parts import converted, inputs_of


class Outputs(NamedTuple):
    """The experiment's tables, figures and report."""

    summary: dsl.Artifact


@dsl.pipeline(name="lung-tumour-ablation", display_name="Lung tumour: networks x losses")
@described(Ingest, Shards, Window, Train, Plan, Summarise)
def lung_tumour_ablation(
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
    parameters: str = "table",
    grid: str = "",
    architectures: str = "segnet,enet,unet",
    losses: str = "bl,fl,cl",
    seeds: int = 1,
    first_seed: int = 0,
    base_channels_segnet: int = 0,
    base_channels_enet: int = 0,
    base_channels_unet: int = 0,
    depth: int = 5,
    batch_norm: bool = False,
    prior: float = 0.01,
    learning_rate: float = 1e-3,
    adam_beta2: float = 0.999,
    learning_rate_schedule: str = "constant",
    batch_size: int = 30,
    epochs: int = 100,
    negatives_per_positive: float = 0.0,
    augment: bool = False,
    keep: str = "best",
    validation: str = "val",
    threshold: float = 0.5,
    precision: str = "auto",
    data_name: str = "your data",
    checkpoints: str = "",
    data_version: str = "",
    code_version: str = "",
) -> Outputs:
    """Compare SegNet, E-Net and U-Net under BL, FL and CL: the paper's Table 1 and Figures 3 and 4 on your patients."""
    given = dict(locals())
    _, slices = converted("lung-tumour", given)
    given["slices"] = slices
    training = {name: given[name] for name in Train.model_fields if name in given}
    planned = plan_experiment(
        experiment="lung-tumour-ablation", training=json_text(**training), **inputs_of(plan_experiment, given)
    )
    with dsl.ParallelFor(planned.outputs["Output"]) as run:
        trained = train_unet(
            architecture=run.architecture,
            base_channels=run.base_channels,
            loss=run.loss,
            alpha=run.alpha,
            gamma=run.gamma,
            beta=run.beta,
            seed=run.seed,
            run_name=run.run_name,
            **inputs_of(train_unet, given),
        )
        evaluated = evaluate_pr_ap(slices=slices, model=trained.outputs["model"], code_version=code_version)
    summarised = summarise_experiment(
        models=dsl.Collected(trained.outputs["model"]),
        evaluations=dsl.Collected(evaluated.outputs["evaluation"]),
        **inputs_of(summarise_experiment, given),
    )
    return Outputs(summarised.outputs["summary"])
