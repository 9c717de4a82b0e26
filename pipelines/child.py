"""The process that runs a pipeline with kfp.local: `python -m hounsfield.pipelines.child ORDER`.

KFP runs two iterations of a loop at once and mixes what their tasks print. Each line is therefore passed on as an
event, in JSON behind a marker, that says which task it came from; `hounsfield.pipelines.local` reads them.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from hounsfield.data.model_store import read_card
from hounsfield.errors import HounsfieldError
from hounsfield.step import EXIT_PREEMPTED

EVENT = "\x1eevent "
OUTPUTS = "outputs.json"

_numbers = count(1)
_writing = threading.Lock()
_running: set[subprocess.Popen[str]] = set()
_stopping = threading.Event()


def emit(**event: Any) -> None:
    """Write an event as one line of stdout."""
    with _writing:
        sys.stdout.write(f"{EVENT}{json.dumps(event)}\n")
        sys.stdout.flush()


def run_task(full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
    """Run the process of one task, pass on its lines and return its exit code.

    Takes the place of `kfp.local.subprocess_task_handler.run_local_subprocess`.
    """
    environment = os.environ | (env_vars or {})
    looped = threading.current_thread() is not threading.main_thread()
    if looped:  # KFP runs two iterations at once, each in a thread
        environment.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // 2)))
    if _stopping.is_set():
        return EXIT_PREEMPTED
    number, started = next(_numbers), time.monotonic()
    order = json.loads(full_command[full_command.index("--executor_input") + 1])
    emit(
        task=number,
        start=Path(order["outputs"]["outputFile"]).parent.name,
        label=label(order["inputs"]) if looped else "",
    )
    with subprocess.Popen(
        full_command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    ) as process:
        _running.add(process)
        assert process.stdout is not None
        for line in process.stdout:
            emit(task=number, line=line.rstrip("\n"))
    _running.discard(process)
    emit(task=number, end=process.returncode, seconds=time.monotonic() - started)
    return process.returncode


def label(inputs: dict[str, Any]) -> str:
    """What tells the tasks of a loop apart: name, fold and seed of the run, from parameters or the model's card."""
    values = dict(inputs.get("parameterValues", {}))
    for artifact in inputs.get("artifacts", {}).get("model", {}).get("artifacts", []):
        try:
            values |= read_card(Path(artifact["uri"])).parameters
        except HounsfieldError:
            continue
    name = str(values.get("run_name") or values.get("space") or "")
    numbers = {"fold": values.get("fold", -1), "seed": values.get("seed", values.get("search_seed", -1))}
    parts = [name, *(f"{part} {int(value)}" for part, value in numbers.items() if int(value) >= 0)]
    return " ".join(filter(None, parts))


def stop(signal_number: int, frame: Any) -> None:
    """End the running tasks, which save their checkpoints first, and this process."""
    _stopping.set()
    running = list(_running)
    for process in running:
        process.terminate()
    for process in running:
        process.wait()
    os._exit(EXIT_PREEMPTED)


def execute(order: dict[str, Any], pipelines: dict[str, Callable[..., Any]]) -> None:
    """Run the pipeline with kfp.local and write its outputs beside the log."""
    from kfp import local
    from kfp.local import subprocess_task_handler

    subprocess_task_handler.run_local_subprocess = run_task
    out = Path(order["out"])
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(out / "artifacts"),
        enable_caching=order["cache"],
    )
    task = pipelines[order["pipeline"]](**order["inputs"])
    outputs = {name: getattr(value, "path", value) for name, value in task.outputs.items()}
    (out / OUTPUTS).write_text(json.dumps(outputs, indent=2))


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")
    signal.signal(signal.SIGTERM, stop)
    from hounsfield.pipelines.catalog import PIPELINES

    try:
        execute(json.loads(sys.argv[1]), PIPELINES)
    except RuntimeError as failure:
        sys.exit(str(failure))
