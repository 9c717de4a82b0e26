"""`python -m hounsfield.components.register_model`: the step by hand."""

from pathlib import Path

from pydantic import Field

from hounsfield.components.register_model.config import Config
from hounsfield.components.register_model.run import run
from hounsfield.step import command_line


class Arguments(Config):
    """Log a model and its evaluation to MLflow and register the model."""

    model: Path = Field(description="model directory that train_unet or train_l3 wrote")
    evaluation: Path = Field(description="evaluation directory that evaluate_pr_ap wrote")
    result: Path | None = Field(None, description="JSON file to write name, version, aliases and URIs to")


def work(arguments: Arguments) -> None:
    paths = {"model", "evaluation", "result"}
    run(Config(**arguments.model_dump(exclude=paths)), arguments.model, arguments.evaluation, arguments.result)


if __name__ == "__main__":
    command_line(Arguments, work, "python -m hounsfield.components.register_model")
