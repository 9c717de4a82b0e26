"""Descriptions of KFP inputs, taken from the fields of the configurations."""

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel

Function = TypeVar("Function", bound=Callable[..., Any])

COMMON = {
    "data": "folders or s3:// prefixes with DICOM series and their labels, separated by commas",
    "cases": "cases file (CSV: image, label, label_value, patient, split, roi) instead of data",
    "data_version": "any text that changes when the data changes; part of the cache key",
    "code_version": "version of the code; part of the cache key",
    "checkpoints": "folder for checkpoints that outlives the run; empty for one beside the model",
    "tracking_uri": "MLflow tracking URI; empty for MLFLOW_TRACKING_URI",
}


def described(*configs: type[BaseModel], **others: str) -> Callable[[Function], Function]:
    """Append to a function's docstring an `Args:` section that describes its parameters.

    A parameter is described by `others`, by the field of that name in one of `configs`, or by `COMMON`. KFP reads the
    section into the compiled pipeline, where the Kubeflow UI shows it.
    """
    texts = dict(COMMON)
    for config in configs:
        texts.update({name: str(field.description) for name, field in config.model_fields.items()})
    texts.update(others)

    def decorate(function: Function) -> Function:
        names = [name for name in function.__annotations__ if name != "return" and name in texts]
        lines = [f"    {name}: {texts[name]}" for name in names]
        function.__doc__ = "\n".join([(function.__doc__ or "").strip(), "", "Args:", *lines])
        return function

    return decorate
