"""`python -m hounsfield.components.summarise_experiment`: the step by hand."""

from pydantic import Field

from hounsfield.components.summarise_experiment.config import Config
from hounsfield.remote import fetch, output
from hounsfield.step import command_line


class Arguments(Config):
    """Summarise the runs of an experiment beside the paper's figures."""

    slices: str = Field(description="slice set that the models were trained on: a folder or s3://bucket/key")
    models: list[str] = Field(description="models, likewise, separated by commas")
    evaluations: list[str] = Field(description="an evaluation of each model, in any order, separated by commas")
    out: str = Field(description="summary to write: a folder or s3://bucket/key")


def work(arguments: Arguments) -> None:
    from hounsfield.components.summarise_experiment.run import run

    config = Config(**arguments.model_dump(exclude={"slices", "models", "evaluations", "out"}))
    models = [fetch(model) for model in arguments.models]
    evaluations = [fetch(evaluation) for evaluation in arguments.evaluations]
    with output(arguments.out) as out:
        run(config, fetch(arguments.slices), models, evaluations, out)


if __name__ == "__main__":
    command_line(Arguments, work, "python -m hounsfield.components.summarise_experiment")
