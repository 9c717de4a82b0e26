"""Follows the tasks that kfp.local runs, in processes or in containers.

KFP runs two iterations of a loop at once and mixes what their tasks print. Each line is therefore passed on as an
event, in JSON behind a marker, that says which task it came from; `hounsfield.pipelines.local` reads them.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from hounsfield.data.model_store import read_card
from hounsfield.errors import HounsfieldError
from hounsfield.step import EXIT_PREEMPTED, exit_code

EVENT = "\x1eevent "

_numbers = count(1)
_writing = threading.Lock()
_running: set["Running"] = set()
_stopping = threading.Event()


class Running(Protocol):
    """A task under way."""

    def lines(self) -> Iterator[str]:
        """What it prints, line by line until it ends."""

    def wait(self) -> int:
        """Its exit code, once it has ended."""

    def terminate(self) -> None:
        """Ask it to end; a training saves its checkpoint first."""

    def close(self) -> None:
        """Leave nothing of it behind."""


def emit(**event: Any) -> None:
    """Write an event as one line of stdout."""
    with _writing:
        sys.stdout.write(f"{EVENT}{json.dumps(event)}\n")
        sys.stdout.flush()


def follow(command: list[str], environment: dict[str, str], start: Callable[[dict[str, str]], Running]) -> int:
    """Start the task whose KFP command is `command`, pass on its lines and return its exit code.

    Args:
        environment: variables of the task; a task of a loop gets half of the processor's cores.
        start: starts the task with these variables.
    """
    looped = threading.current_thread() is not threading.main_thread()
    if looped:  # KFP runs two iterations at once, each in a thread
        environment.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // 2)))
    if _stopping.is_set():
        return EXIT_PREEMPTED
    number, started = next(_numbers), time.monotonic()
    order = json.loads(command[command.index("--executor_input") + 1])
    name = Path(order["outputs"]["outputFile"]).parent.name
    emit(task=number, start=name, label=label(order["inputs"]) if looped else "")
    try:
        task = start(environment)
        _running.add(task)
        try:
            for line in task.lines():
                emit(task=number, line=line)
            code = task.wait()
        finally:
            _running.discard(task)
            task.close()
    except HounsfieldError as error:
        emit(task=number, line=f"error: {error}")
        code = exit_code(error)
    emit(task=number, end=code, seconds=time.monotonic() - started)
    return code


def stop() -> None:
    """End the running tasks and start no more."""
    _stopping.set()
    running = list(_running)
    for task in running:
        task.terminate()
    for task in running:
        task.wait()
        task.close()


def label(inputs: dict[str, Any]) -> str:
    """What tells the tasks of a loop apart: shard of an ingest, or name, fold and seed of a run.

    They come from the parameters, or from the card of the model that is an input.
    """
    values = dict(inputs.get("parameterValues", {}))
    for artifact in inputs.get("artifacts", {}).get("model", {}).get("artifacts", []):
        try:
            values |= read_card(Path(artifact["uri"])).parameters
        except HounsfieldError:
            continue
    name = str(values.get("run_name") or values.get("space") or "")
    numbers = {"fold": values.get("fold", -1), "seed": values.get("seed", values.get("search_seed", -1))}
    shard = f"shard {values['shard']}" if values.get("shard") else ""
    parts = [name, shard, *(f"{part} {int(value)}" for part, value in numbers.items() if int(value) >= 0)]
    return " ".join(filter(None, parts))
