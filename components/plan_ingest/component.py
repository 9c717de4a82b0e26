"""KFP signature of plan-ingest."""

from typing import List  # noqa: UP035 (KFP does not know list[dict])

from kfp import dsl

from hounsfield.components.describe import described
from hounsfield.components.images import CPU_IMAGE
from hounsfield.components.plan_ingest.config import Config


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
@described(Config)
def plan_ingest(
    plan: dsl.Output[dsl.Artifact],
    data: str = "",
    cases: str = "",
    series_per_shard: int = 0,
    data_version: str = "",
    code_version: str = "",
) -> List[dict]:  # type: ignore[type-arg]  # noqa: UP006
    """Divide the series to ingest into shards and return an item for each."""
    arguments = dict(locals())
    from hounsfield.components.plan_ingest.config import Config
    from hounsfield.components.plan_ingest.run import run
    from hounsfield.step import run_in_pipeline

    arguments["data"] = [folder for folder in data.split(",") if folder]
    return run_in_pipeline(run, Config, arguments)
