"""`python -m hounsfield.components.dicom_ingest`."""

import json
import sys

from pydantic import Field

from hounsfield.components.dicom_ingest.config import Config
from hounsfield.components.dicom_ingest.run import run
from hounsfield.errors import InputError
from hounsfield.remote import fetch, output
from hounsfield.step import command_line


class Arguments(Config):
    """Turn CT series and labels into a series store: Hounsfield units, masks, pseudonyms, and a reason for the rest."""

    data: list[str] = Field(default=[], description="Folder of any nesting or s3://bucket/prefix; may be repeated")
    cases: str = Field(
        default="",
        description="CSV file, local or on S3, with the columns image, label, label_value, patient, split, roi",
    )
    plan: str = Field("", description="Plan of plan_ingest, local or on S3; together with shard")
    shard: str = Field("", pattern=r"^\d*$", description="Number of the plan's shard to ingest; empty for everything")
    out: str = Field(description="Series store to write: a folder or s3://bucket/key")


def work(arguments: Arguments) -> None:
    """Run the step with the paths of the command line."""
    config = Config(**arguments.model_dump(include=set(Config.model_fields)))
    if bool(arguments.plan) != bool(arguments.shard):
        raise InputError("give --plan and --shard together, or neither")
    plan = fetch(arguments.plan) if arguments.plan else None
    with output(arguments.out) as store:
        run(config, arguments.data, arguments.cases, store, plan, arguments.shard)


def whole_paths(argv: list[str]) -> list[str]:
    """Write every value of `--data` as a JSON list, so that a comma in a folder's name does not split it."""
    result: list[str] = []
    for argument in argv:
        name, given, value = argument.partition("=")
        if result and result[-1] == "--data":
            result.append(json.dumps([argument]))
        elif name == "--data" and given:
            result.append(f"--data={json.dumps([value])}")
        else:
            result.append(argument)
    return result


if __name__ == "__main__":
    command_line(Arguments, work, "python -m hounsfield.components.dicom_ingest", whole_paths(sys.argv[1:]))
