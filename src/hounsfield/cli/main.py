"""The command `hounsfield`."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hounsfield import __version__
from hounsfield.cli.models import models
from hounsfield.errors import HounsfieldError, InputError
from hounsfield.step import fail, parse, quiet_warnings

app = typer.Typer(
    help="CT series in, registered models out: lung-tumour segmentation and L3 slice detection.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(models, name="models")


class Task(StrEnum):
    LUNG_TUMOUR = "lung-tumour"
    L3_SLICE = "l3-slice"


class Pipeline(StrEnum):
    LUNG_TUMOUR = "lung-tumour"
    L3_SLICE = "l3-slice"
    LUNG_TUMOUR_ABLATION = "lung-tumour-ablation"
    L3_SLICE_STUDY = "l3-slice-study"
    RETRAIN = "retrain"


class Strategy(StrEnum):
    BAYESIAN = "bayesian"
    GREEDY = "greedy"


class Runner(StrEnum):
    SUBPROCESS = "subprocess"
    DOCKER = "docker"


DataOption = Annotated[list[str] | None, typer.Option(help="Folder or s3:// prefix with series and labels.")]
CasesOption = Annotated[
    str | None, typer.Option(help="CSV, here or s3://: image, label, label_value, patient, split, roi.")
]
PoolOption = Annotated[
    str, typer.Option(metavar="NAME|JSON", help="Nodes for trainings: nvidia, gke, eks, cpu, or fields as JSON.")
]
RegistryOption = Annotated[str, typer.Option(help="Registry and folder of the images; none by default.")]
TagOption = Annotated[str, typer.Option(help="Tag of the images; new code needs a new one.")]
PullSecretOption = Annotated[str, typer.Option(help="Secret with the registry's credentials; none by default.")]
EmbeddedSearchOption = Annotated[
    bool, typer.Option("--embedded-search", help="Search inside the step tune instead of by Katib trials.")
]


HostOption = Annotated[
    str, typer.Option(help="Address of Kubeflow Pipelines; else KF_PIPELINES_ENDPOINT, this cluster or the kubeconfig.")
]
NamespaceOption = Annotated[str, typer.Option(help="Your profile's namespace, where Kubeflow serves several users.")]
RunsOption = Annotated[str, typer.Option("--experiment", help="Experiment of Kubeflow that the runs belong to.")]
AccountOption = Annotated[str, typer.Option(help="ServiceAccount of the steps; empty for the server's own.")]
RemoteDataOption = Annotated[list[str] | None, typer.Option(help="s3:// prefix with series and labels.")]
RemoteCasesOption = Annotated[str, typer.Option(help="s3:// address of a cases file, instead of --data.")]
SettingsOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set an input: `hounsfield run TASK --inputs`.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


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
    data: DataOption = None,
    cases: CasesOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder for artifacts and log; runs/TASK by default.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set an input of the pipeline; see below.")
    ] = None,
    cache: Annotated[bool, typer.Option(help="Reuse the steps of earlier runs whose inputs did not change.")] = True,
    runner: Annotated[Runner, typer.Option(help="Steps as processes, or in containers (`make images`).")] = (
        Runner.SUBPROCESS
    ),
    registry: Annotated[str, typer.Option(help="Registry of the images; this machine's own by default.")] = "",
    list_inputs: Annotated[bool, typer.Option("--inputs", help="List the inputs of the pipeline and exit.")] = False,
) -> None:
    """Run a pipeline here: a task (ingest, window, train, evaluate, register) or an experiment of a paper.

    The inputs that --set takes are those of the compiled pipeline: `hounsfield run TASK --inputs` lists them.
    """
    from hounsfield.cli.run import print_inputs, run_task

    if list_inputs:
        print_inputs(task.value)
        return
    folder = out or Path("runs") / task.value
    run_task(task.value, data or [], cases, folder, settings or [], cache, runner.value, registry)


@app.command()
def tune(
    task: Annotated[Task, typer.Argument(help="Whose training to search.")],
    trials: Annotated[int, typer.Option(min=1, help="Settings to train; greedy takes its grids' number instead.")] = 30,
    slices: Annotated[str | None, typer.Option(help="Slice set of an earlier run, here or s3://.")] = None,
    data: DataOption = None,
    cases: CasesOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder for study and report; runs/tune-TASK by default.")] = None,
    strategy: Annotated[Strategy, typer.Option(help="greedy: alpha, then gamma, then beta.")] = Strategy.BAYESIAN,
    space: Annotated[str, typer.Option(help="Search space: joint; proposed or control (l3-slice).")] = "",
    objective: Annotated[str, typer.Option(help="f1 or average_precision; the task's own by default.")] = "",
    repeats: Annotated[int, typer.Option(min=1, help="Trainings of the winner, with as many seeds.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="The same seed tries the same parameters.")] = 0,
    tracking_uri: Annotated[str, typer.Option(help="MLflow to log to; MLFLOW_TRACKING_URI or none by default.")] = "",
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
def predict(
    task: Annotated[Task, typer.Argument(help="What to look for.")],
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="Folder or s3:// prefix with CT series, at any depth.")
    ],
    model: Annotated[str, typer.Option(help="models:/NAME@ALIAS, models:/NAME/VERSION or a model folder.")],
    out: Annotated[Path, typer.Option(help="Folder for results; what is done in it is not done again.")],
    tracking_uri: Annotated[str, typer.Option(help="MLflow with the model; else MLFLOW_TRACKING_URI.")] = "",
    min_slices: Annotated[int, typer.Option(min=2, help="Series with fewer slices are refused.")] = 10,
    batch_size: Annotated[int, typer.Option(min=1, help="Slices that go through the network at once.")] = 4,
    any_region: Annotated[
        bool, typer.Option("--any-region", help="Predict series without lungs (or without an abdomen, for L3) as well.")
    ] = False,
    fp32: Annotated[bool, typer.Option("--fp32", help="Do not let bf16 screen the slices first.")] = False,
) -> None:
    """Predict new scans: masks, measurements and slices as DICOM objects, JSON and pictures. Research use only."""
    from hounsfield.cli.predict import run_predict

    run_predict(task.value, source, model, out, tracking_uri, min_slices, batch_size, any_region, fp32)


@app.command()
def inspect(
    location: Annotated[
        str, typer.Argument(help="A series store, slice set, model, evaluation, tuning or experiment; here or s3://.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what an artifact holds."""
    from hounsfield.cli.inspect import inspect as inspect_artifact

    inspect_artifact(location, as_json)


@app.command()
def compile(
    tasks: Annotated[
        list[Pipeline] | None, typer.Argument(help="Pipelines to compile; all when none is named.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the YAML files.")] = Path("runs/compiled"),
    pool: PoolOption = "nvidia",
    registry: RegistryOption = "",
    tag: TagOption = __version__,
    pull_secret: PullSecretOption = "",
    embedded_search: EmbeddedSearchOption = False,
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="Write Pipeline and PipelineVersion resources as well.")
    ] = False,
    namespace: Annotated[str, typer.Option(help="Namespace of these resources.")] = "hounsfield",
) -> None:
    """Write the pipelines as YAML for the Kubeflow UI, their trainings placed on a pool of nodes."""
    from hounsfield.pipelines.compile import compile_all
    from hounsfield.pipelines.placement import Cluster

    values = {
        "pool": pool, "registry": registry, "tag": tag, "pull_secret": pull_secret,
        "embedded_search": embedded_search, "namespace": namespace,
    }  # fmt: skip
    names = [task.value for task in tasks or list(Pipeline)]
    for path in compile_all(out, names, parse(Cluster, values), kubernetes):
        print(path)


@app.command()
def train_job(
    task: Annotated[Task, typer.Argument(help="Whose network to train.")],
    slices: Annotated[str, typer.Option(help="s3:// address of a slice set.")],
    model: Annotated[str, typer.Option(help="s3:// address of the model directory to write.")],
    nodes: Annotated[int, typer.Option(min=1, help="Nodes of the pool that share every batch.")] = 2,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set a parameter of the training.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the TrainJob; made from its arguments by default.")] = "",
    pool: PoolOption = "nvidia",
    registry: RegistryOption = "",
    tag: TagOption = __version__,
    pull_secret: PullSecretOption = "",
    namespace: Annotated[str, typer.Option(help="Namespace of the TrainJob.")] = "hounsfield",
) -> None:
    """Print a training on several nodes as a TrainJob of Kubeflow Trainer: `... | kubectl apply -f -`."""
    from hounsfield.cli.train_job import print_train_job
    from hounsfield.cli.train_job import train_job as job
    from hounsfield.pipelines.placement import Cluster

    values = {"pool": pool, "registry": registry, "tag": tag, "pull_secret": pull_secret, "namespace": namespace}
    print_train_job(job(task.value, slices, model, nodes, parse(Cluster, values), settings or [], name))


@app.command()
def submit(
    task: Annotated[Pipeline, typer.Argument(help="The pipeline to run.")],
    data: RemoteDataOption = None,
    cases: RemoteCasesOption = "",
    settings: SettingsOption = None,
    host: HostOption = "",
    namespace: NamespaceOption = "",
    experiment: RunsOption = "hounsfield",
    pool: PoolOption = "nvidia",
    registry: RegistryOption = "",
    tag: TagOption = __version__,
    pull_secret: PullSecretOption = "",
    embedded_search: EmbeddedSearchOption = False,
    service_account: AccountOption = "hounsfield-pipelines",
    wait: Annotated[bool, typer.Option(help="Wait and show the tasks; the run goes on after Ctrl-C.")] = True,
    timeout: Annotated[float, typer.Option(min=0, help="Minutes to wait; 0 for as long as it takes.")] = 0,
) -> None:
    """Run a pipeline once on a cluster, wait for it and exit with 0 when it succeeded, else 1.

    Logs in by HOUNSFIELD_KFP_TOKEN (bearer token), HOUNSFIELD_KFP_COOKIE (session cookie), HOUNSFIELD_KFP_USER with
    HOUNSFIELD_KFP_PASSWORD (Dex), a mounted ServiceAccount token or kfp's context; a port-forward needs none.
    """
    from hounsfield.cli.submit import Target, run_submit
    from hounsfield.pipelines.placement import Cluster

    cluster = {
        "pool": pool, "registry": registry, "tag": tag, "pull_secret": pull_secret, "embedded_search": embedded_search
    }  # fmt: skip
    target = Target(host, namespace, experiment, service_account)
    code = run_submit(task.value, data or [], cases, settings or [], parse(Cluster, cluster), target, wait, timeout)
    raise typer.Exit(code)


@app.command()
def schedule(
    task: Annotated[Pipeline | None, typer.Argument(help="The pipeline to run at fixed times.")] = None,
    cron: Annotated[str, typer.Option(help='When, in UTC: "0 2 * * *" is every night at two.')] = "",
    data: RemoteDataOption = None,
    cases: RemoteCasesOption = "",
    settings: SettingsOption = None,
    name: Annotated[str, typer.Option(help="Name of the schedule; TASK by default.")] = "",
    list_all: Annotated[bool, typer.Option("--list", help="List the schedules and exit.")] = False,
    pause: Annotated[str, typer.Option(metavar="NAME", help="Pause a schedule and exit.")] = "",
    resume: Annotated[str, typer.Option(metavar="NAME", help="Resume a schedule and exit.")] = "",
    delete: Annotated[str, typer.Option(metavar="NAME", help="Delete a schedule and exit.")] = "",
    yes: YesOption = False,
    host: HostOption = "",
    namespace: NamespaceOption = "",
    experiment: RunsOption = "hounsfield",
    pool: PoolOption = "nvidia",
    registry: RegistryOption = "",
    tag: TagOption = __version__,
    pull_secret: PullSecretOption = "",
    embedded_search: EmbeddedSearchOption = False,
    service_account: AccountOption = "hounsfield-pipelines",
) -> None:
    """Run a pipeline at fixed times on a cluster: one run at a time, missed times are not made up for.

    Called again, it shows what differs from the schedule on the server, a new version of the pipeline included, and
    replaces it. It logs in as `hounsfield submit` does.
    """
    from hounsfield.cli import schedule as schedules
    from hounsfield.cli.submit import Target
    from hounsfield.pipelines.placement import Cluster

    target = Target(host, namespace, experiment, service_account)
    if sum(map(bool, (task, list_all, pause, resume, delete))) != 1:
        raise InputError("schedule does one thing at a time: TASK --cron, --list, --pause, --resume or --delete NAME")
    if list_all:
        schedules.list_schedules(target)
    elif pause:
        schedules.pause(target, pause)
    elif resume:
        schedules.resume(target, resume)
    elif delete:
        schedules.remove(target, delete, yes)
    elif task:
        cluster = {
            "pool": pool, "registry": registry, "tag": tag, "pull_secret": pull_secret,
            "embedded_search": embedded_search,
        }  # fmt: skip
        schedules.run_schedule(
            task.value, cron, data or [], cases, settings or [], parse(Cluster, cluster), target, name, yes
        )


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
