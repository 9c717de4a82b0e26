"""`python -m hounsfield.components.plan_retraining`: the step by hand."""

from pydantic import Field

from hounsfield.components.plan_retraining.config import Config
from hounsfield.components.plan_retraining.run import run
from hounsfield.remote import output
from hounsfield.step import command_line


class Arguments(Config):
    """Say whether a model has to be trained again on a dataset, with which parameters, and write the data."""

    dataset: str = Field(description="folder or s3://bucket/prefix that update_dataset fills")
    version: str = Field(description="number of the version to train on")
    training: str = Field("", description="JSON object of training parameters that replace those of the champion")
    out: str = Field(description="Series store to write when there is something to train: a folder or s3://bucket/key")


def work(arguments: Arguments) -> None:
    """Run the step with the paths of the command line."""
    config = Config(**arguments.model_dump(include=set(Config.model_fields)))
    with output(arguments.out) as store:
        plan = run(config, arguments.dataset, arguments.version, arguments.training, store)
    print(f"decision={plan.Output}\ntraining={plan.training}", flush=True)


if __name__ == "__main__":
    command_line(Arguments, work, "python -m hounsfield.components.plan_retraining")
