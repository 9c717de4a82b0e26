"""What pipelines begin and end with."""

from collections.abc import Mapping
from typing import Any

from kfp import dsl

from hounsfield.components.compare_models.component import compare_models
from hounsfield.components.dicom_ingest.component import dicom_ingest
from hounsfield.components.evaluate_pr_ap.component import evaluate_pr_ap
from hounsfield.components.merge_stores.component import merge_stores
from hounsfield.components.plan_ingest.component import plan_ingest
from hounsfield.components.register_model.component import register_model
from hounsfield.components.window_convert.component import window_convert

SHARDS_AT_ONCE = 8


def converted(task: str, given: Mapping[str, Any]) -> tuple[Any, Any]:
    """Series store and slice set of ingest and window steps for `task`, with the inputs of the pipeline that have their
    names."""
    planned = plan_ingest(**inputs_of(plan_ingest, given))
    with dsl.ParallelFor(planned.outputs["Output"], parallelism=SHARDS_AT_ONCE) as item:
        own = {"plan": planned.outputs["plan"], "shard": item.shard}
        ingested = dicom_ingest(**(inputs_of(dicom_ingest, given) | own))
    merged = merge_stores(stores=dsl.Collected(ingested.outputs["store"]), **inputs_of(merge_stores, given))
    own = {"store": merged.outputs["store"], "task": task}
    windowed = window_convert(**(inputs_of(window_convert, given) | own))
    return merged.outputs["store"], windowed.outputs["slices"]


def judged(given: Mapping[str, Any]) -> tuple[Any, Any]:
    """Evaluate `model`, compare it with the champion on the same test patients, register it and make it champion if it
    has earned that; `slices` and `store` are among `given` as well. Returns the evaluation and the registered URI."""
    # By name: batch size and threshold of the pipelines are those of the training.
    evaluated = evaluate_pr_ap(**{name: given[name] for name in ("slices", "model", "code_version")})
    evaluation = evaluated.outputs["evaluation"]
    compared = compare_models(evaluation=evaluation, **inputs_of(compare_models, given))
    compared.set_caching_options(False)
    registered = register_model(
        evaluation=evaluation,
        comparison=compared.outputs["comparison"],
        kfp_run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        **inputs_of(register_model, given),
    )
    registered.set_caching_options(False)
    return evaluation, registered.output


def inputs_of(component: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `given` that are inputs of `component`."""
    return {name: given[name] for name in component.component_spec.inputs if name in given}
