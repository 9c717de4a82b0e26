"""Descriptions of KFP inputs, taken from the fields of the configurations."""

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel

Function = TypeVar("Function", bound=Callable[..., Any])

DATA = {
    "data": "folders or s3:// prefixes with DICOM series and their labels, separated by commas",
    "cases": "cases file (CSV: image, label, label_value, patient, split, roi) instead of data",
    "dataset": "folder or s3://bucket/prefix in which the dataset grows, or its name in HOUNSFIELD_DATASETS",
    "data_version": "any text; another one has the data read anew, as does any change of the data",
}
RUN = {
    "code_version": "version of the code; part of the cache key",
    "checkpoints": "folder or s3:// prefix of checkpoints; empty for HOUNSFIELD_CHECKPOINTS or else beside the model",
    "training": "JSON object of training parameters that replace those given one by one",
    "tuned": "JSON object of parameters that replace all others, as the step tune returns it",
    "tracking_uri": "MLflow tracking URI; empty for MLFLOW_TRACKING_URI",
}
COMMON = DATA | RUN


def described(*configs: type[BaseModel], **others: str) -> Callable[[Function], Function]:
    """Append to a function's docstring an `Args:` section that describes its parameters.

    A parameter is described by `others`, by the field of that name in one of `configs`, or by `COMMON`. With several
    configurations, as pipelines have them, a description begins with the step that the parameter belongs to, such as
    [train-unet], because the Kubeflow UI shows the inputs as one flat list. KFP reads the section into the compiled
    pipeline.
    """
    of_configs = [(step_of(config), fields_of(config)) for config in configs]
    texts = {
        name: f"[{group}] {text}" if len(configs) > 1 else text
        for group, described_by in [("data", DATA), ("run", RUN), *of_configs, ("run", others)]
        for name, text in described_by.items()
    }

    def decorate(function: Function) -> Function:
        names = [name for name in function.__annotations__ if name != "return" and name in texts]
        lines = [f"    {name}: {texts[name]}" for name in names]
        function.__doc__ = "\n".join([(function.__doc__ or "").strip(), "", "Args:", *lines])
        return function

    return decorate


def fields_of(config: type[BaseModel]) -> dict[str, str]:
    """Descriptions of the fields of a configuration."""
    return {name: str(field.description) for name, field in config.model_fields.items()}


def step_of(config: type[BaseModel]) -> str:
    """Name of the step whose folder the configuration is in, as KFP names its tasks."""
    return config.__module__.split(".")[-2].replace("_", "-")
