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
    comparison: dsl.Output[dsl.Artifact],
    model_name: str = "",
    tracking_uri: str = "",
    code_version: str = "",
):
    """Evaluate the champion on the same test patients as a new model and say whether it stays champion."""
    arguments = dict(locals())
    from hounsfield.components.compare_models.config import Config
    from hounsfield.components.compare_models.run import run
    from hounsfield.step import run_in_pipeline

    run_in_pipeline(run, Config, arguments)
