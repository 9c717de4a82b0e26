"""What all pipelines begin with."""

from collections.abc import Mapping
from typing import Any

from hounsfield.components.dicom_ingest.component import dicom_ingest
from hounsfield.components.window_convert.component import window_convert


def slice_set(task: str, given: Mapping[str, Any]) -> Any:
    """Output `slices` of ingest and window steps for `task`, with the inputs of the pipeline that have their names."""
    ingested = dicom_ingest(**_inputs_of(dicom_ingest, given))
    own = {"store": ingested.outputs["store"], "task": task}
    return window_convert(**(_inputs_of(window_convert, given) | own)).outputs["slices"]


def _inputs_of(component: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in component.component_spec.inputs if name in given}
