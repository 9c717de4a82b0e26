"""`python -m hounsfield.components.merge_stores`: the step by hand."""

from pydantic import Field

from hounsfield.components.merge_stores.config import Config
from hounsfield.components.merge_stores.run import run
from hounsfield.remote import fetch, output
from hounsfield.step import command_line


class Arguments(Config):
    """Join the series stores of the shards of an ingest into one."""

    stores: list[str] = Field(description="series stores of all shards, in their order: folders or s3://bucket/key")
    out: str = Field(description="Series store to write: likewise")


def work(arguments: Arguments) -> None:
    """Run the step with the paths of the command line."""
    with output(arguments.out) as store:
        run(Config(), [fetch(location) for location in arguments.stores], store)


if __name__ == "__main__":
    command_line(Arguments, work, "python -m hounsfield.components.merge_stores")
