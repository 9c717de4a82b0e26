"""KFP signature of summarise-experiment."""

from typing import List  # noqa: UP035 (KFP does not know list[Model])

from kfp import dsl

from hounsfield.components.describe import described
from hounsfield.components.images import CPU_IMAGE
from hounsfield.components.summarise_experiment.config import Config


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
@described(Config)
def summarise_experiment(
    slices: dsl.Input[dsl.Dataset],
    models: dsl.Input[List[dsl.Model]],  # noqa: UP006
    evaluations: dsl.Input[List[dsl.Artifact]],  # noqa: UP006
    summary: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    data_name: str = "your data",
    code_version: str = "",
):
    """Summarise the runs of an experiment beside the paper's figures."""
    arguments = {name: value for name, value in locals().items() if name != "report"}
    import shutil

    from hounsfield.components.summarise_experiment.config import Config
    from hounsfield.components.summarise_experiment.run import run
    from hounsfield.step import run_in_pipeline

    arguments |= {"models": [item.path for item in models], "evaluations": [item.path for item in evaluations]}
    run_in_pipeline(run, Config, arguments)
    shutil.copyfile(f"{summary.path}/report.html", report.path)
