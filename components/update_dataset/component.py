"""KFP signature of update-dataset."""

from kfp import dsl

from hounsfield.components.describe import described
from hounsfield.components.images import CPU_IMAGE
from hounsfield.components.update_dataset.config import Config


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
@described(Config)
def update_dataset(
    data: str = "",
    cases: str = "",
    dataset: str = "",
    roi: str = "",
    label_value: int = 0,
    min_slices: int = 3,
    allow_empty_labels: bool = False,
    keep_absent: bool = True,
    code_version: str = "",
) -> str:
    """Ingest the series that a growing dataset does not have yet and return the number of its latest version."""
    arguments = dict(locals())
    from hounsfield.components.update_dataset.config import Config
    from hounsfield.components.update_dataset.run import run
    from hounsfield.step import run_in_pipeline

    arguments["data"] = [folder for folder in data.split(",") if folder]
    return run_in_pipeline(run, Config, arguments)
