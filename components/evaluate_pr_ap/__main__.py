"""`python -m hounsfield.components.evaluate_pr_ap`: the step by hand."""

from pathlib import Path

from pydantic import Field

from hounsfield.components.evaluate_pr_ap.config import Config
from hounsfield.step import command_line


class Arguments(Config):
    """Evaluate a model on the patients of one split of a slice set."""

    slices: Path = Field(description="slice set that window_convert wrote")
    model: Path = Field(description="model that train_unet or train_l3 wrote")
    out: Path = Field(description="evaluation to write")


def work(arguments: Arguments) -> None:
    from hounsfield.components.evaluate_pr_ap.run import run

    config = Config(**arguments.model_dump(exclude={"slices", "model", "out"}))
    run(config, arguments.slices, arguments.model, arguments.out)


if __name__ == "__main__":
    command_line(Arguments, work, "python -m hounsfield.components.evaluate_pr_ap")
