"""`python -m hounsfield.components.compare_models`: the step by hand."""

from pydantic import Field

from hounsfield.components.compare_models.config import Config
from hounsfield.components.compare_models.run import run
from hounsfield.remote import fetch, output
from hounsfield.step import command_line


class Arguments(Config):
    """Compare a new model with the champion in MLflow on the same test patients."""

    slices: str = Field(description="slice set that window_convert wrote: a folder or s3://bucket/key")
    model: str = Field(description="model that train_unet or train_l3 wrote: likewise")
    evaluation: str = Field(description="its evaluation on the test patients, as evaluate_pr_ap wrote it: likewise")
    store: str = Field("", description="series store of the slice set, for thickness and manufacturer: likewise")
    out: str = Field(description="comparison to write: likewise")


def work(arguments: Arguments) -> None:
    """Run the step with the paths of the command line."""
    config = Config(**arguments.model_dump(include=set(Config.model_fields)))
    store = fetch(arguments.store, lambda name: not name.startswith("volumes/")) if arguments.store else None
    with output(arguments.out) as comparison:
        run(config, fetch(arguments.slices), fetch(arguments.model), fetch(arguments.evaluation), comparison, store)


if __name__ == "__main__":
    command_line(Arguments, work, "python -m hounsfield.components.compare_models")
