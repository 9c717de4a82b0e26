"""`python -m hounsfield.components.register_model`: the step by hand."""

from contextlib import nullcontext

from pydantic import Field

from hounsfield.components.register_model.config import Config
from hounsfield.components.register_model.run import run
from hounsfield.remote import fetch, output
from hounsfield.step import command_line


class Arguments(Config):
    """Log a model and its evaluation to MLflow and register the model."""

    model: str = Field(description="model that train_unet or train_l3 wrote: a folder or s3://bucket/key")
    evaluation: str = Field(description="evaluation that evaluate_pr_ap wrote: likewise")
    comparison: str = Field("", description="comparison that compare_models wrote: likewise; empty for none")
    result: str = Field(
        "", description="JSON file to write name, version, aliases and URIs to: likewise; empty for none"
    )


def work(arguments: Arguments) -> None:
    paths = {"model", "evaluation", "comparison", "result"}
    config = Config(**arguments.model_dump(exclude=paths))
    with output(arguments.result) if arguments.result else nullcontext() as result:
        compared = fetch(arguments.comparison) if arguments.comparison else None
        run(config, fetch(arguments.model), fetch(arguments.evaluation), result, compared)


if __name__ == "__main__":
    command_line(Arguments, work, "python -m hounsfield.components.register_model")
