"""KFP signature of register-model."""

from kfp import dsl

from hounsfield.components.describe import described
from hounsfield.components.images import CPU_IMAGE
from hounsfield.components.register_model.config import Config


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
@described(Config)
def register_model(
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    comparison: dsl.Input[dsl.Artifact] = None,
    model_name: str = "",
    experiment: str = "",
    tracking_uri: str = "",
    kfp_run_id: str = "",
    code_version: str = "",
) -> str:
    """Log a model and its evaluation to MLflow, register the model and return its URI."""
    arguments = dict(locals())
    from hounsfield.components.register_model.config import Config
    from hounsfield.components.register_model.run import run
    from hounsfield.step import run_in_pipeline

    return run_in_pipeline(run, Config, arguments)["model_uri"]
