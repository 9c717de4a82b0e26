"""`hounsfield submit`: one run of a pipeline on a cluster."""

import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from hounsfield.errors import InputError
from hounsfield.pipelines.catalog import PIPELINES
from hounsfield.pipelines.compile import compile_all
from hounsfield.pipelines.inputs import parse_settings, signature
from hounsfield.pipelines.placement import Cluster
from hounsfield.pipelines.server import Refused, Server, Unreachable, Version

POLL_SECONDS = 5.0
PATIENCE_SECONDS = 300.0
"""How long a server may be out of reach while a run is followed."""
FINAL = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}
REMOTE = ("s3://", "minio://")


@dataclass(frozen=True)
class Target:
    """Where on a server runs go."""

    host: str = ""
    namespace: str = ""
    experiment: str = "hounsfield"
    service_account: str = "hounsfield-pipelines"


@dataclass(frozen=True)
class Uploaded:
    """A pipeline version on the server and the names of its tasks."""

    version: Version
    experiment: str
    tasks: frozenset[str]


def run_submit(
    task: str,
    data: list[str],
    cases: str,
    settings: list[str],
    cluster: Cluster,
    target: Target,
    wait: bool = True,
    timeout: float = 0.0,
) -> int:
    """Run `task` once on a cluster; returns 0 when it succeeded or was not waited for, else 1.

    Args:
        timeout: minutes to wait; 0 for as long as it takes.

    Raises:
        InputError: the inputs cannot be used, or the server cannot be reached or refuses.
    """
    moment = datetime.now(UTC)
    inputs = cluster_inputs(task, data, cases, settings)
    server, uploaded = upload(task, cluster, target)
    name = f"{task} {moment:%Y-%m-%d %H:%M:%S}"
    run = server.run(name, uploaded.version, uploaded.experiment, inputs, target.service_account)
    kind = "new version" if uploaded.version.created else "version"
    print(f"{task}: {name!r} submitted, {kind} {uploaded.version.name}")
    print(f"  run       {server.link('runs', run)}", flush=True)
    if not wait:
        return 0
    follower = Follower(task, run, uploaded.tasks, server.link("runs", run))
    try:
        return follower.follow(server, target, timeout)
    except KeyboardInterrupt:
        print(f"not waiting any longer; the run goes on: {follower.link}", flush=True)
        return 130


def cluster_inputs(task: str, data: list[str], cases: str, settings: list[str]) -> dict[str, Any]:
    """Inputs of the pipeline `task` from the command line.

    Raises:
        InputError: an unknown setting, nothing to run on, or a folder of this machine.
    """
    inputs = parse_settings(PIPELINES[task], settings)
    known = signature(PIPELINES[task]).parameters
    for name, given in (("data", ",".join(data)), ("cases", cases)):
        if given and name not in known:
            raise InputError(f"--{name}: the pipeline {task} has no such input")
        if given and name in inputs:
            raise InputError(f"--{name} and --set {name}=... exclude each other")
    for place in [*data, *([cases] if cases else [])]:
        if not place.startswith(REMOTE):
            raise InputError(
                f"{place}: the cluster does not see folders of this machine: copy it to a bucket (aws s3 sync {place} "
                "s3://BUCKET/PREFIX) and give that, or --set data=/PATH for a volume that is mounted into the steps"
            )
    inputs |= ({"data": ",".join(data)} if data else {}) | ({"cases": cases} if cases else {})
    if {"data", "cases"} & set(known) and not (inputs.get("data") or inputs.get("cases")):
        raise InputError("nothing to run on: give --data s3://BUCKET/PREFIX or --cases s3://BUCKET/FILE.csv")
    if inputs.get("data") and inputs.get("cases"):
        raise InputError("--data and --cases exclude each other: name the folders in the cases file")
    return inputs


def upload(task: str, cluster: Cluster, target: Target) -> tuple[Server, Uploaded]:
    """Compile `task` for `cluster`, connect, and have version and experiment on the server."""
    with tempfile.TemporaryDirectory(prefix="hounsfield-") as folder:
        (document,) = compile_all(Path(folder), [task], cluster)
        server = Server(target.host, target.namespace)
        description = (PIPELINES[task].component_spec.description or task).split("\n")[0]  # type: ignore[attr-defined]
        version = server.version(task, description, document)
        tasks = frozenset(task_names(document))
    return server, Uploaded(version, server.experiment(target.experiment), tasks)


def task_names(document: Path) -> Iterable[str]:
    """Names of all tasks in a compiled pipeline, those of loops and conditions included."""
    with document.open() as file:
        spec = next(yaml.safe_load_all(file))
    for component in [spec["root"], *spec["components"].values()]:
        yield from component.get("dag", {}).get("tasks", {})


class Follower:
    """Watches a run and shows its tasks."""

    def __init__(self, task: str, run: str, tasks: frozenset[str], link: str) -> None:
        self.task, self.run, self.tasks, self.link = task, run, tasks, link
        self.console = Console(highlight=False, soft_wrap=True)
        self._shown: dict[str, str] = {}

    def follow(self, server: Server, target: Target, timeout: float) -> int:
        """Wait until the run ends; 0 when it succeeded, else 1. A lost connection is tried again for a while."""
        started = answered = time.monotonic()
        renewed = False
        with self.console.status(f"{self.task}: waiting") as status:
            while True:
                try:
                    run = server.client.get_run(self.run)
                    answered, renewed = time.monotonic(), False
                    running = self.show(run)
                    status.update(f"{self.task}: {', '.join(running) or str(run.state).lower()}")
                    if run.state in FINAL:
                        return self.outcome(run)
                except (Refused, Unreachable) as error:
                    code = error.status if isinstance(error, Refused) else 503
                    if code == 401 and not renewed:
                        renewed, server = True, self._again(target)
                    elif code < 500 or time.monotonic() - answered > PATIENCE_SECONDS:
                        raise InputError(f"{error}; the run goes on: {self.link}") from error
                if timeout and time.monotonic() - started > timeout * 60:
                    self.console.print(f"{self.task}: not done after {timeout:g} minutes; the run goes on: {self.link}")
                    return 1
                time.sleep(POLL_SECONDS)

    def _again(self, target: Target) -> Server:
        """A connection with credentials read anew."""
        try:
            return Server(target.host, target.namespace)
        except InputError as error:
            raise InputError(f"{error}; the run goes on: {self.link}") from error

    def show(self, run: Any) -> list[str]:
        """Print what has changed since the last call; returns the tasks that run now."""
        running = []
        for item in self._details(run):
            state, before = str(item.state), self._shown.get(item.task_id)
            if state == "RUNNING":
                running.append(item.display_name)
            if state == before:
                continue
            self._shown[item.task_id] = state
            match state:
                case "RUNNING" if not self.console.is_terminal:
                    self._line("...", item.display_name, "running")
                case "SUCCEEDED":
                    self._line("ok", item.display_name, _seconds(item))
                case "SKIPPED":
                    self._line("-", item.display_name, "from the cache, or not needed")
                case "FAILED" | "CANCELED":
                    self._line("FAIL", item.display_name, _reason(item))
        return running

    def outcome(self, run: Any) -> int:
        """Print how the run ended."""
        if run.state == "SUCCEEDED":
            self.console.print(f"{self.task}: succeeded\n  run       {self.link}", markup=False)
            return 0
        failed = [item for item in self._details(run) if item.state == "FAILED"]
        parents = {item.parent_task_id for item in failed}
        first = next((item for item in failed if item.task_id not in parents), None) or self._driver(run)
        if run.state == "CANCELED":
            text = f"{self.task}: the run was cancelled"
        elif first is None:
            text = f"{self.task}: the run {str(run.state).lower()}: {_said(run.error) or _last_error(run)}"
        else:
            pods = [child.pod_name for child in first.child_tasks or [] if child.pod_name]
            log = f" (its log: kubectl logs {pods[0]}, or in the UI)" if pods else ""
            text = f"{self.task}: {first.display_name} failed: {_reason(first)}{log}"
        self.console.print(f"{text}\n  run       {self.link}", markup=False)
        return 1

    def _details(self, run: Any) -> list[Any]:
        """The tasks of the pipeline, without those that the engine puts around them."""
        found = (run.run_details.task_details if run.run_details else None) or []
        return [item for item in found if item.display_name in self.tasks]

    @staticmethod
    def _driver(run: Any) -> Any:
        """The failed helper that should have started a task."""
        found = (run.run_details.task_details if run.run_details else None) or []
        return next((i for i in found if i.state == "FAILED" and str(i.display_name).endswith("-driver")), None)

    def _line(self, mark: str, name: str, text: str) -> None:
        self.console.print(f"  {mark:<4} {name:<28} {text}".rstrip(), markup=False)


def _seconds(item: Any) -> str:
    if not item.start_time or not item.end_time or item.end_time < item.start_time:
        return ""
    return f"{(item.end_time - item.start_time).total_seconds():8.1f} s"


def _said(error: Any) -> str:
    return " ".join(str(error.message or "").split())[:400] if error else ""


def _last_error(item: Any) -> str:
    found = [_said(state.error) for state in item.state_history or []]
    return next((text for text in reversed(found) if text), "")


def _reason(item: Any) -> str:
    """A task's error with a hint where it has a common cause."""
    text = _said(item.error) or _last_error(item) or "the server gives no reason"
    if "exceeded quota" in text:
        return f"{text}: free or raise the ResourceQuota of the namespace"
    if "ImagePull" in text:
        return f"{text}: check --registry, --tag and --pull-secret"
    if "Unschedulable" in text or "Insufficient" in text:
        return f"{text}: no node fits: check --pool"
    return text
