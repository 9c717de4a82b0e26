"""KFP signature of dicom-ingest."""

from kfp import dsl

from hounsfield.components.describe import described
from hounsfield.components.dicom_ingest.config import Config
from hounsfield.components.images import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
@described(Config, shard="number of the shard of the plan to ingest; empty for everything")
def dicom_ingest(
    store: dsl.Output[dsl.Dataset],
    plan: dsl.Input[dsl.Artifact] = None,
    shard: str = "",
    data: str = "",
    cases: str = "",
    roi: str = "",
    label_value: int = 0,
    min_slices: int = 3,
    allow_empty_labels: bool = False,
    data_version: str = "",
    code_version: str = "",
):
    """Read CT series and expert labels into a de-identified series store."""
    arguments = dict(locals())
    from hounsfield.components.dicom_ingest.config import Config
    from hounsfield.components.dicom_ingest.run import run
    from hounsfield.step import run_in_pipeline

    arguments["data"] = [folder for folder in data.split(",") if folder]
    run_in_pipeline(run, Config, arguments)
