"""The process that runs a pipeline with kfp.local: `python -m hounsfield.pipelines.child ORDER`."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from hounsfield.pipelines import containers, tasks
from hounsfield.step import EXIT_PREEMPTED

OUTPUTS = "outputs.json"


class Process:
    """A task as a process of this machine."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
        )
        self.wait = self._process.wait

    def lines(self) -> Iterator[str]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield line.rstrip("\n")

    def terminate(self) -> None:
        """Ask what KFP's shell started to end: the shell passes no signal on and ends with it."""
        import psutil

        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._process.pid)
            for started in process.children() or [process]:
                started.terminate()

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def run_process(full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
    """Takes the place of `kfp.local.subprocess_task_handler.run_local_subprocess`."""
    return tasks.follow(full_command, os.environ | (env_vars or {}), lambda given: Process(full_command, given))


def stop(runner: str, signal_number: int, frame: Any) -> None:
    """End the running tasks, which save their checkpoints first, and this process."""
    tasks.stop()
    if runner == "docker":
        containers.remove_leftovers()
    os._exit(EXIT_PREEMPTED)


def execute(order: dict[str, Any], pipelines: dict[str, Callable[..., Any]]) -> None:
    """Run the pipeline with kfp.local and write its outputs beside the log."""
    from kfp import local
    from kfp.local import subprocess_task_handler

    out = Path(order["out"])
    if order["runner"] == "docker":
        runner = containers.docker_runner(order["inputs"], out, order["registry"])
    else:
        subprocess_task_handler.run_local_subprocess = run_process
        runner = local.SubprocessRunner(use_venv=False)
    local.init(runner=runner, pipeline_root=str(out / "artifacts"), enable_caching=order["cache"])
    task = pipelines[order["pipeline"]](**order["inputs"])
    outputs = {name: getattr(value, "path", value) for name, value in task.outputs.items()}
    (out / OUTPUTS).write_text(json.dumps(outputs, indent=2))


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")
    given = json.loads(sys.argv[1])
    signal.signal(signal.SIGTERM, partial(stop, given["runner"]))
    from hounsfield.pipelines.catalog import PIPELINES

    try:
        execute(given, PIPELINES)
    except RuntimeError as failure:
        sys.exit(str(failure))
