"""KFP signature of data-version."""

from kfp import dsl

from hounsfield.components.data_version.config import Config
from hounsfield.components.describe import described
from hounsfield.components.images import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
@described(Config)
def data_version(data: str = "", cases: str = "", given: str = "") -> str:
    """Work out a version of the data, which changes with any file."""
    arguments = dict(locals())
    from hounsfield.components.data_version.config import Config
    from hounsfield.components.data_version.run import run
    from hounsfield.step import run_in_pipeline

    arguments["data"] = [folder for folder in data.split(",") if folder]
    return run_in_pipeline(run, Config, arguments)
