"""The command `hounsfield`."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hounsfield import __version__
from hounsfield.errors import HounsfieldError
from hounsfield.step import fail, quiet_warnings

app = typer.Typer(
    help="CT series in, registered models out: lung-tumour segmentation and L3 slice detection.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Task(StrEnum):
    LUNG_TUMOUR = "lung-tumour"
    L3_SLICE = "l3-slice"


class Pipeline(StrEnum):
    LUNG_TUMOUR = "lung-tumour"
    L3_SLICE = "l3-slice"
    LUNG_TUMOUR_ABLATION = "lung-tumour-ablation"
    L3_SLICE_STUDY = "l3-slice-study"


class Strategy(StrEnum):
    BAYESIAN = "bayesian"
    GREEDY = "greedy"


class Experiment(StrEnum):
    LUNG = "lung"
    L3 = "l3"


class Region(StrEnum):
    CHEST = "chest"
    ABDOMEN = "abdomen"


def version(value: bool) -> None:
    if value:
        print(f"hounsfield {__version__}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """CT series in, registered models out: lung-tumour segmentation and L3 slice detection."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for data, runs and summary.json.")] = Path("runs/demo"),
) -> None:
    """Make synthetic CT, run both pipelines end to end and write summary.json (about 7 minutes on 2 cores)."""
    from hounsfield.cli.demo import run_demo

    run_demo(out)


@app.command()
def papers(
    out: Annotated[Path, typer.Option(help="Folder for data, runs and summary.json.")] = Path("runs/papers"),
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each kind; three tell a claim from chance.")] = 1,
    only: Annotated[Experiment | None, typer.Option(help="Only the nine ablation runs, or only the L3 study.")] = None,
) -> None:
    """Run both papers' experiments at a reduced size on synthetic CT (under 30 minutes on 2 cores)."""
    from hounsfield.cli.papers import run_papers

    run_papers(out, seeds, only.value if only else "")


@app.command()
def phantom(
    region: Annotated[Region, typer.Argument(help="chest (tumours, DICOM SEG) or abdomen (L3, NIfTI labels).")],
    out: Annotated[Path, typer.Argument(help="Folder to write; it gets a cases.csv for --cases.")],
    patients: Annotated[int, typer.Option(min=1, help="Number of patients, one series each.")] = 20,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    size: Annotated[int, typer.Option(min=64, max=1024, help="Rows and columns of the images.")] = 512,
    slice_thickness: Annotated[float, typer.Option(min=0.5, max=10, help="Distance of the slices in mm.")] = 5.0,
) -> None:
    """Write synthetic CT series as DICOM, with labels."""
    from hounsfield.phantom import write_cohort

    cases = write_cohort(region.value, out, patients, seed, size, slice_thickness)
    print(f"{patients} patients; cases file: {cases}")


@app.command()
def run(
    task: Annotated[Pipeline, typer.Argument(help="The pipeline to run.")],
    data: Annotated[list[str] | None, typer.Option(help="Folder or s3:// prefix with series and labels.")] = None,
    cases: Annotated[Path | None, typer.Option(help="CSV: image, label, label_value, patient, split, roi.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for artifacts and log.  [default: runs/TASK]")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set an input of the pipeline; see below.")
    ] = None,
    cache: Annotated[bool, typer.Option(help="Reuse the steps of earlier runs whose inputs did not change.")] = True,
    list_inputs: Annotated[bool, typer.Option("--inputs", help="List the inputs of the pipeline and exit.")] = False,
) -> None:
    """Run a pipeline here: a task (ingest, window, train, evaluate, register) or an experiment of a paper.

    The inputs that --set takes are those of the compiled pipeline: `hounsfield run TASK --inputs` lists them.
    """
    from hounsfield.cli.run import print_inputs, run_task

    if list_inputs:
        print_inputs(task.value)
        return
    run_task(task.value, data or [], cases, out or Path("runs") / task.value, settings or [], cache)


@app.command()
def tune(
    task: Annotated[Task, typer.Argument(help="Whose training to search.")],
    trials: Annotated[int, typer.Option(min=1, help="Settings to train; greedy takes its grids' number instead.")] = 30,
    slices: Annotated[Path | None, typer.Option(help="Slice set of an earlier run.")] = None,
    data: Annotated[list[str] | None, typer.Option(help="Folder or s3:// prefix with series and labels.")] = None,
    cases: Annotated[Path | None, typer.Option(help="CSV: image, label, label_value, patient, split, roi.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for study and report.  [default: runs/tune-TASK]")] = None,
    strategy: Annotated[Strategy, typer.Option(help="greedy: alpha, then gamma, then beta.")] = Strategy.BAYESIAN,
    space: Annotated[str, typer.Option(help="Search space: joint; proposed or control (l3-slice).")] = "",
    objective: Annotated[str, typer.Option(help="f1 or average_precision; the task's own by default.")] = "",
    repeats: Annotated[int, typer.Option(min=1, help="Trainings of the winner, with as many seeds.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="The same seed tries the same parameters.")] = 0,
    tracking_uri: Annotated[str, typer.Option(help="MLflow to log to.  [default: MLFLOW_TRACKING_URI or none]")] = "",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set a parameter of a step, as run does.")
    ] = None,
) -> None:
    """Search the parameters of a training on validation patients; stopped at any time, the same call goes on."""
    from hounsfield.cli.tune import run_tune

    search = {
        "task": task.value, "trials": trials, "strategy": strategy.value, "space": space, "objective": objective,
        "repeats": repeats, "search_seed": seed, "tracking_uri": tracking_uri,
    }  # fmt: skip
    run_tune(search, slices, data or [], cases, out or Path("runs") / f"tune-{task.value}", settings or [])


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A series store, slice set, model, evaluation, tuning or experiment.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what an artifact holds."""
    from hounsfield.cli.inspect import inspect as inspect_artifact

    inspect_artifact(path, as_json)


@app.command()
def compile(
    tasks: Annotated[
        list[Pipeline] | None, typer.Argument(help="Pipelines to compile; all when none is named.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the YAML files.")] = Path("runs/compiled"),
) -> None:
    """Write the pipelines as YAML for the Kubeflow UI."""
    from hounsfield.pipelines.compile import compile_all

    for path in compile_all(out, [task.value for task in tasks or list(Pipeline)]):
        print(path)


def main() -> None:
    """Run the command; an error that a user can cure is one line and exit code 2."""
    quiet_warnings()
    try:
        app()
    except HounsfieldError as error:
        fail(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
