"""KFP signature of tune."""

from kfp import dsl

from hounsfield.components.describe import described
from hounsfield.components.images import CPU_IMAGE
from hounsfield.components.tune.config import Config


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
@described(Config, training="JSON object of the training step's parameters, which the search starts from")
def tune(
    slices: dsl.Input[dsl.Dataset],
    tuning: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    training: str = "{}",
    task: str = "lung-tumour",
    backend: str = "auto",
    trials: int = 0,
    strategy: str = "bayesian",
    space: str = "",
    objective: str = "",
    repeats: int = 1,
    search_seed: int = 0,
    start_from_given: bool = True,
    grid: str = "",
    fold: int = -1,
    experiment: str = "",
    tracking_uri: str = "",
    algorithm: str = "bayesianoptimization",
    parallel_trials: int = 2,
    trial_hours: float = 24.0,
    patience_minutes: int = 30,
    keep_experiment: bool = True,
    checkpoints: str = "",
    code_version: str = "",
) -> str:
    """Search the parameters of a training on validation patients and return the best as JSON."""
    arguments = {name: value for name, value in locals().items() if name != "report"} | {"slices_uri": slices.uri}
    from hounsfield.components.tune.config import Config
    from hounsfield.components.tune.publish import publish
    from hounsfield.components.tune.run import run
    from hounsfield.step import run_in_pipeline

    best = run_in_pipeline(run, Config, arguments)
    publish(tuning.path, report)
    return best
