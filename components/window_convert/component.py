"""KFP signature of window-convert."""

from kfp import dsl

from hounsfield.components.describe import described
from hounsfield.components.images import CPU_IMAGE
from hounsfield.components.window_convert.config import Config


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
@described(Config)
def window_convert(
    store: dsl.Input[dsl.Dataset],
    slices: dsl.Output[dsl.Dataset],
    task: str = "lung-tumour",
    width: float = 0.0,
    level: float = 0.0,
    size: int = 0,
    test_fraction: float = 0.2,
    val_fraction: float = 0.15,
    split_seed: int = 0,
    folds: int = 5,
    max_prevalence: float = 0.0,
    code_version: str = "",
):
    """Window the slices of a series store and split them by patient."""
    arguments = dict(locals())
    from hounsfield.components.window_convert.config import Config
    from hounsfield.components.window_convert.run import run
    from hounsfield.step import run_in_pipeline

    run_in_pipeline(run, Config, arguments)
