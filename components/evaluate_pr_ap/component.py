"""KFP signature of evaluate-pr-ap."""

from kfp import dsl

from hounsfield.components.describe import described
from hounsfield.components.evaluate_pr_ap.config import Config
from hounsfield.components.images import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
@described(Config)
def evaluate_pr_ap(
    slices: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
    split: str = "test",
    fold: int = -1,
    threshold: float = 0.0,
    vertebra_mm: float = 30.0,
    batch_size: int = 8,
    shown_cases: int = 3,
    code_version: str = "",
):
    """Evaluate a model by precision and recall on unseen patients."""
    arguments = {name: value for name, value in locals().items() if name not in ("metrics", "confusion", "report")}
    from hounsfield.components.evaluate_pr_ap.config import Config
    from hounsfield.components.evaluate_pr_ap.publish import publish
    from hounsfield.components.evaluate_pr_ap.run import run
    from hounsfield.step import run_in_pipeline

    run_in_pipeline(run, Config, arguments)
    publish(evaluation.path, metrics, confusion, report)
