"""KFP signature of plan-retraining."""

from typing import NamedTuple

from kfp import dsl

from hounsfield.components.describe import described
from hounsfield.components.images import CPU_IMAGE
from hounsfield.components.plan_retraining.config import Config

VERSION = "number of the dataset's version to train on, as update_dataset returns it"
TRAINING = "JSON object of training parameters that replace those of the champion, or the defaults when there is none"


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
@described(Config, version=VERSION, training=TRAINING)
def plan_retraining(
    version: str,
    store: dsl.Output[dsl.Dataset],
    dataset: str = "",
    training: str = "",
    task: str = "lung-tumour",
    model_name: str = "",
    tracking_uri: str = "",
    code_version: str = "",
) -> NamedTuple("Plan", [("Output", str), ("training", str)]):  # type: ignore[valid-type]
    """Say whether a registered model has seen this version of the dataset; if none has, hand it out for training."""
    arguments = dict(locals())
    from hounsfield.components.plan_retraining.config import Config
    from hounsfield.components.plan_retraining.run import run
    from hounsfield.step import run_in_pipeline

    return run_in_pipeline(run, Config, arguments)
