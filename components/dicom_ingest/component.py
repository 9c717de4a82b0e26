"""KFP signature of dicom-ingest."""

from kfp import dsl

from hounsfield.components.describe import described
from hounsfield.components.dicom_ingest.config import Config
from hounsfield.components.images import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
@described(Config)
def dicom_ingest(
    store: dsl.Output[dsl.Dataset],
    montage: dsl.Output[dsl.HTML],
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
    arguments = {name: value for name, value in locals().items() if name != "montage"}
    import shutil

    from hounsfield.components.dicom_ingest.config import Config
    from hounsfield.components.dicom_ingest.run import run
    from hounsfield.step import run_in_pipeline

    arguments["data"] = [folder for folder in data.split(",") if folder]
    run_in_pipeline(run, Config, arguments)
    shutil.copyfile(f"{store.path}/index.html", montage.path)
