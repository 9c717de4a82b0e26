"""KFP signature of compare-models."""

from kfp import dsl

from hounsfield.components.compare_models.config import Config
from hounsfield.components.describe import described
from hounsfield.components.images import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
@described(Config)
def compare_models(
    slices: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    store: dsl.Input[dsl.Dataset],
    comparison: dsl.Output[dsl.Artifact],
    model_name: str = "",
    tracking_uri: str = "",
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
    code_version: str = "",
):
    """Evaluate the champion on the same test patients as a new model and say whether it stays champion."""
    arguments = dict(locals())
    from hounsfield.components.compare_models.config import Config
    from hounsfield.components.compare_models.run import run
    from hounsfield.step import run_in_pipeline

    run_in_pipeline(run, Config, arguments)
