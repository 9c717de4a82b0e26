"""`python -m hounsfield.components.dicom_ingest`."""

import json
import sys
from pathlib import Path

from pydantic import Field

from hounsfield.components.dicom_ingest.config import Config
from hounsfield.components.dicom_ingest.run import run
from hounsfield.step import command_line


class Arguments(Config):
    """Turn CT series and labels into a series store: Hounsfield units, masks, pseudonyms, and a reason for the rest."""

    data: list[str] = Field(default=[], description="Folder of any nesting or s3://bucket/prefix; may be repeated")
    cases: str | None = Field(
        default=None, description="CSV file with the columns image, label, label_value, patient, split, roi"
    )
    out: Path = Field(description="Folder of the series store to write")


def work(arguments: Arguments) -> None:
    """Run the step with the paths of the command line."""
    values = arguments.model_dump()
    data, cases, out = values.pop("data"), values.pop("cases"), values.pop("out")
    run(Config(**values), data, cases, out)


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
