"""Runs a pipeline here, with kfp.local in a child process, and shows its steps as they go.

The child's whole output goes to `run.log`; the terminal gets one line a step and the progress of long work.
"""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from hounsfield import __version__
from hounsfield.errors import HounsfieldError, InputError, OutOfMemory, Preempted, TrainingError
from hounsfield.pipelines.catalog import PIPELINES
from hounsfield.pipelines.child import OUTPUTS
from hounsfield.pipelines.containers import prepare
from hounsfield.pipelines.tasks import EVENT
from hounsfield.progress import parse_line
from hounsfield.step import EXIT_OUT_OF_MEMORY, EXIT_PREEMPTED, EXIT_TRAINING_FAILED

ANSI = re.compile(r"\x1b\[[0-9;]*m")
ERROR = re.compile(r"(error|preempted): (?P<sentence>.+)")
PATH_AT_END = re.compile(r"[;:] (\w+: )?/\S+$")
SECONDS_BETWEEN_LINES = 15.0
ERRORS = {EXIT_TRAINING_FAILED: TrainingError, EXIT_OUT_OF_MEMORY: OutOfMemory}


@dataclass
class PipelineRun:
    """Outputs of a finished pipeline and the seconds of each step that ran (steps served by the cache are absent)."""

    outputs: dict[str, str]
    seconds: dict[str, float] = field(default_factory=dict)


def run_pipeline(
    name: str,
    inputs: dict[str, Any],
    out: Path,
    *,
    cache: bool = True,
    quiet: bool = False,
    runner: str = "subprocess",
    registry: str = "",
) -> PipelineRun:
    """Run pipeline `name` with kfp.local; artifacts, cache and log go to `out`.

    Args:
        runner: "subprocess" runs the steps as processes, "docker" in containers of the images in `registry`.

    Raises:
        InputError: `out` cannot be written, or there is no container engine or image.
        HounsfieldError: a step failed; the message is the step's own.
    """
    out = out.resolve()
    try:
        out.mkdir(parents=True, exist_ok=True)
        log = (out / "run.log").open("a", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write output {out}: {error.strerror}: choose a writable --out") from error
    (out / OUTPUTS).unlink(missing_ok=True)
    engine = {"DOCKER_HOST": prepare(PIPELINES[name], registry)} if runner == "docker" else {}
    order = json.dumps(
        {
            "pipeline": name,
            "inputs": inputs,
            "out": str(out),
            "cache": cache,
            "runner": runner,
            "registry": registry,
        }
    )
    with log, tempfile.TemporaryDirectory(prefix="hounsfield-") as scratch, terminable():
        environment = (
            os.environ
            | engine
            | {
                "PYTHONUNBUFFERED": "1",
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
                "TMPDIR": scratch,
            }
        )
        child = subprocess.Popen(
            [sys.executable, "-m", "hounsfield.pipelines.child", order],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env=environment,
        )
        watcher = Watcher(name, quiet)
        try:
            assert child.stdout is not None
            with watcher.bar:
                for line in child.stdout:
                    log.write(watcher.read(line))
                    log.flush()
            code = child.wait()
        except BaseException:
            child.terminate()
            child.wait()
            raise
    if code != 0:
        raise watcher.failure(out / "run.log")
    return PipelineRun(json.loads((out / OUTPUTS).read_text()), watcher.seconds)


@contextmanager
def terminable() -> Iterator[None]:
    """Inside of it SIGTERM raises Preempted, so that the child is ended as well."""

    def leave(number: int, frame: Any) -> NoReturn:
        raise Preempted

    try:
        before = signal.signal(signal.SIGTERM, leave)
    except ValueError:  # not the main thread, which has no signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass
class Step:
    """A running task: its component, what tells it apart in a loop, and what it said so far."""

    name: str
    label: str
    bar: TaskID
    shown: float
    """Time (monotonic) of its last line on a terminal without bars."""
    summary: str = ""
    error: str = ""
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=3))
    in_json: bool = False

    @property
    def title(self) -> str:
        return f"{self.name} {self.label}".rstrip()


class Watcher:
    """Turns the lines of the child process into bars on a terminal, or into sparse lines elsewhere."""

    def __init__(self, pipeline: str, quiet: bool) -> None:
        self.console = Console(stderr=False, highlight=False, soft_wrap=True, quiet=quiet)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self.bar = Progress(
            *columns,
            TextColumn("{task.fields[detail]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.pipeline = pipeline
        self.seconds: dict[str, float] = {}
        self.failed: list[tuple[Step, int]] = []
        self._running: dict[int, Step] = {}
        self._tail: deque[str] = deque(maxlen=3)

    def read(self, line: str) -> str:
        """Show what a line of the child tells; returns it as it goes to the log."""
        before, marker, event = ANSI.sub("", line).partition(EVENT)
        if not marker:
            if before.strip():
                self._tail.append(before.strip())
            return before
        return before + self._event(json.loads(event))

    def _event(self, event: dict[str, Any]) -> str:
        number = event["task"]
        if "start" in event:
            name, label = event["start"], event["label"]
            title = f"{self.pipeline} · {name} {label}".rstrip()
            bar = self.bar.add_task(title, total=None, detail="")
            self._running[number] = Step(name, label, bar, time.monotonic())
            return f"{name} {label}".rstrip() + " | started\n"
        step = self._running[number]
        if "line" in event:
            self._line(step, event["line"])
            return f"{step.title} | {event['line']}\n"
        del self._running[number]
        self._finish(step, event["end"], event["seconds"])
        return f"{step.title} | ended with exit code {event['end']} after {event['seconds']:.1f} s\n"

    def _line(self, step: Step, line: str) -> None:
        text = line.strip()
        if text.startswith("[KFP Executor"):
            step.in_json = text.endswith("Got executor_input:")
        elif step.in_json:
            step.in_json = line != "}"
        elif found := ERROR.match(text):
            step.error = found["sentence"]
        elif progress := parse_line(text):
            detail = f"{progress.done}/{progress.total} {progress.detail}".rstrip()
            self.bar.update(step.bar, completed=progress.done, total=progress.total, detail=detail)
            now = time.monotonic()
            if not self.console.is_terminal and now - step.shown > SECONDS_BETWEEN_LINES:
                step.shown = now
                self.console.print(f"  {self.pipeline} · {step.title} {detail}", markup=False)
        elif text:
            if text.startswith("warning: "):
                self.console.print(f"  {text}", markup=False)
            step.summary = text
            step.tail.append(text)

    def _finish(self, step: Step, code: int, elapsed: float) -> None:
        self.seconds[step.title] = round(elapsed, 1)
        self.bar.remove_task(step.bar)
        if code:
            self.failed.append((step, code))
        mark, said = ("ok  ", step.summary) if code == 0 else ("FAIL", step.error)
        width = 16
        if step.label:
            width, said = 36, PATH_AT_END.sub("", said)
        self.console.print(f"  {mark} {step.title:<{width}} {elapsed:6.1f} s  {said}".rstrip(), markup=False)

    def failure(self, log: Path) -> HounsfieldError:
        """The first failed step's own error line, else the last lines it printed."""
        if not self.failed:
            return HounsfieldError(
                f"{self.pipeline}: {' | '.join(self._tail) or 'ended without a message'} (log: {log})"
            )
        step, code = self.failed[0]
        if code == EXIT_PREEMPTED:
            return Preempted()
        said = step.error or " | ".join(step.tail) or f"ended with exit code {code} and no message"
        others = len(self.failed) - 1
        more = f"; {others} more failed" if others else ""
        return ERRORS.get(code, HounsfieldError)(f"{self.pipeline} · {step.title}: {said}{more} (log: {log})")


def code_version() -> str:
    """Version and hash of the package's own source: a changed line of code is never served from the cache."""
    digest = hashlib.sha256()
    import hounsfield.components
    import hounsfield.pipelines
    import hounsfield.registry

    for package in (hounsfield, hounsfield.components, hounsfield.pipelines, hounsfield.registry):
        for folder in package.__path__:
            for path in sorted(Path(folder).rglob("*")):
                if path.suffix in (".py", ".j2"):
                    digest.update(path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:12]}"
