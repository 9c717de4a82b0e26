"""KFP signature of plan-experiment."""

from typing import List  # noqa: UP035 (KFP does not know list[dict])

from kfp import dsl

from hounsfield.components.describe import described
from hounsfield.components.images import TRAINING_IMAGE
from hounsfield.components.plan_experiment.config import Config


@dsl.component(base_image=TRAINING_IMAGE, install_kfp_package=False)
@described(Config, training="JSON object of the training parameters that all runs share, for the greedy search")
def plan_experiment(
    slices: dsl.Input[dsl.Dataset],
    plan: dsl.Output[dsl.Artifact],
    experiment: str = "lung-tumour-ablation",
    parameters: str = "table",
    architectures: str = "segnet,enet,unet",
    losses: str = "bl,fl,cl",
    base_channels_segnet: int = 0,
    base_channels_enet: int = 0,
    base_channels_unet: int = 0,
    arms: str = "control,proposed",
    folds: int = 5,
    seeds: int = 1,
    first_seed: int = 0,
    grid: str = "",
    training: str = "{}",
    checkpoints: str = "",
    code_version: str = "",
) -> List[dict]:  # type: ignore[type-arg]  # noqa: UP006
    """List the trainings of an experiment."""
    arguments = dict(locals())
    from hounsfield.components.plan_experiment.config import Config
    from hounsfield.components.plan_experiment.run import run
    from hounsfield.step import run_in_pipeline

    return run_in_pipeline(run, Config, arguments)
