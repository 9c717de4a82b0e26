"""What all pipelines begin with."""

from collections.abc import Mapping
from typing import Any

from kfp import dsl

from hounsfield.components.dicom_ingest.component import dicom_ingest
from hounsfield.components.merge_stores.component import merge_stores
from hounsfield.components.plan_ingest.component import plan_ingest
from hounsfield.components.window_convert.component import window_convert

SHARDS_AT_ONCE = 8


def slice_set(task: str, given: Mapping[str, Any]) -> Any:
    """Output `slices` of ingest and window steps for `task`, with the inputs of the pipeline that have their names."""
    planned = plan_ingest(**inputs_of(plan_ingest, given))
    with dsl.ParallelFor(planned.outputs["Output"], parallelism=SHARDS_AT_ONCE) as item:
        own = {"plan": planned.outputs["plan"], "shard": item.shard}
        ingested = dicom_ingest(**(inputs_of(dicom_ingest, given) | own))
    merged = merge_stores(stores=dsl.Collected(ingested.outputs["store"]), **inputs_of(merge_stores, given))
    own = {"store": merged.outputs["store"], "task": task}
    return window_convert(**(inputs_of(window_convert, given) | own)).outputs["slices"]


def inputs_of(component: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `given` that are inputs of `component`."""
    return {name: given[name] for name in component.component_spec.inputs if name in given}
