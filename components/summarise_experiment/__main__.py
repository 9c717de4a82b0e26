"""`python -m hounsfield.components.summarise_experiment`: the step by hand."""

from pathlib import Path

from pydantic import Field

from hounsfield.components.summarise_experiment.config import Config
from hounsfield.step import command_line


class Arguments(Config):
    """Summarise the runs of an experiment beside the paper's figures."""

    slices: Path = Field(description="slice set that the models were trained on")
    models: list[Path] = Field(description="models, separated by commas")
    evaluations: list[Path] = Field(description="an evaluation of each model, in any order, separated by commas")
    out: Path = Field(description="summary to write")


def work(arguments: Arguments) -> None:
    from hounsfield.components.summarise_experiment.run import run

    config = Config(**arguments.model_dump(exclude={"slices", "models", "evaluations", "out"}))
    run(config, arguments.slices, arguments.models, arguments.evaluations, arguments.out)


if __name__ == "__main__":
    command_line(Arguments, work, "python -m hounsfield.components.summarise_experiment")
