"""`python -m hounsfield.components.evaluate_pr_ap`: the step by hand."""

from pydantic import Field

from hounsfield.components.evaluate_pr_ap.config import Config
from hounsfield.remote import fetch, output
from hounsfield.step import command_line


class Arguments(Config):
    """Evaluate a model on the patients of one split of a slice set."""

    slices: str = Field(description="slice set that window_convert wrote: a folder or s3://bucket/key")
    model: str = Field(description="model that train_unet or train_l3 wrote: likewise")
    out: str = Field(description="evaluation to write: likewise")


def work(arguments: Arguments) -> None:
    from hounsfield.components.evaluate_pr_ap.run import run

    config = Config(**arguments.model_dump(exclude={"slices", "model", "out"}))
    with output(arguments.out) as out:
        run(config, fetch(arguments.slices), fetch(arguments.model), out)


if __name__ == "__main__":
    command_line(Arguments, work, "python -m hounsfield.components.evaluate_pr_ap")
