"""KFP signature of merge-stores."""

from typing import List  # noqa: UP035 (KFP does not know list[Dataset])

from kfp import dsl

from hounsfield.components.describe import described
from hounsfield.components.images import CPU_IMAGE
from hounsfield.components.merge_stores.config import Config


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
@described(Config)
def merge_stores(
    stores: dsl.Input[List[dsl.Dataset]],  # noqa: UP006
    store: dsl.Output[dsl.Dataset],
    montage: dsl.Output[dsl.HTML],
    code_version: str = "",
):
    """Join the series stores of the shards of an ingest into one."""
    arguments = {"stores": [shard.path for shard in stores], "store": store}
    import shutil

    from hounsfield.components.merge_stores.config import Config
    from hounsfield.components.merge_stores.run import run
    from hounsfield.step import run_in_pipeline

    run_in_pipeline(run, Config, arguments)
    shutil.copyfile(f"{store.path}/index.html", montage.path)
