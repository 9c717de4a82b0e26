"""Runs a pipeline here, with kfp.local in a child process, and shows its steps as they go.

The child's whole output goes to `run.log`; the terminal gets one line a step and the progress of long work.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from hounsfield import __version__
from hounsfield.errors import HounsfieldError, InputError
from hounsfield.progress import parse_line

ANSI = re.compile(r"\x1b\[[0-9;]*m")
STARTED = re.compile(r"Executing task '(?P<task>[\w-]+)'")
FINISHED = re.compile(r"Task '(?P<task>[\w-]+)' finished with status (?P<status>\w+)")
OUTPUTS = "outputs.json"
SECONDS_BETWEEN_LINES = 15.0


@dataclass
class PipelineRun:
    """Outputs of a finished pipeline and the seconds of each step that ran (steps served by the cache are absent)."""

    outputs: dict[str, str]
    seconds: dict[str, float] = field(default_factory=dict)


def run_pipeline(
    name: str, inputs: dict[str, Any], out: Path, *, cache: bool = True, quiet: bool = False
) -> PipelineRun:
    """Run pipeline `name` with kfp.local; artifacts, cache and log go to `out`.

    Raises:
        InputError: `out` cannot be written.
        HounsfieldError: a step failed; the message is the step's own.
    """
    out = out.resolve()
    try:
        out.mkdir(parents=True, exist_ok=True)
        log = (out / "run.log").open("a", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write output {out}: {error.strerror}: choose a writable --out") from error
    (out / OUTPUTS).unlink(missing_ok=True)
    order = json.dumps({"pipeline": name, "inputs": inputs, "out": str(out), "cache": cache})
    with log, tempfile.TemporaryDirectory(prefix="hounsfield-") as scratch:
        environment = os.environ | {
            "PYTHONUNBUFFERED": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "TMPDIR": scratch,
        }
        child = subprocess.Popen(
            [sys.executable, "-m", "hounsfield.pipelines.local", order],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env=environment,
        )
        watcher = _Watcher(name, quiet)
        try:
            assert child.stdout is not None
            with watcher.bar:
                for line in child.stdout:
                    log.write(line)
                    watcher.read(ANSI.sub("", line).rstrip())
            code = child.wait()
        except BaseException:
            child.terminate()
            child.wait()
            raise
    if code != 0:
        raise HounsfieldError(f"{watcher.failure()} (log: {out / 'run.log'})")
    return PipelineRun(json.loads((out / OUTPUTS).read_text()), watcher.seconds)


class _Watcher:
    """Turns the lines of the child process into a bar on a terminal, or into sparse lines elsewhere."""

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
        self.pipeline, self.step, self.summary, self.error = pipeline, "", "", ""
        self.seconds: dict[str, float] = {}
        self.tail: deque[str] = deque(maxlen=12)
        self._started = self._last = time.monotonic()
        self._in_json = False
        self._task: Any = None

    def read(self, line: str) -> None:
        text = line.strip()
        if started := STARTED.search(text):
            self.step, self.summary = started["task"], ""
            self._started = self._last = time.monotonic()
            self._task = self.bar.add_task(f"{self.pipeline} · {self.step}", total=None, detail="")
        elif finished := FINISHED.search(text):
            self._finish(finished["status"])
        elif text.startswith("[KFP Executor"):
            self._in_json = text.endswith("Got executor_input:")
        elif self._in_json:
            self._in_json = line.rstrip() != "    }"
        elif text.startswith("error: "):
            self.error = text.removeprefix("error: ")
        elif progress := parse_line(text):
            detail = f"{progress.done}/{progress.total} {progress.detail}"
            if self._task is not None:
                self.bar.update(self._task, completed=progress.done, total=progress.total, detail=detail)
            now = time.monotonic()
            if not self.console.is_terminal and now - self._last > SECONDS_BETWEEN_LINES:
                self._last = now
                self.console.print(f"  {self.pipeline} · {self.step} {detail}", markup=False)
        elif text and not re.match(r"\d\d:\d\d:\d\d\.\d{3} - |-{20,}", text):
            if text.startswith("warning: "):
                self.console.print(f"  {text}", markup=False)
            self.summary = text
            self.tail.append(text)

    def _finish(self, status: str) -> None:
        elapsed = time.monotonic() - self._started
        self.seconds[self.step] = round(elapsed, 1)
        if self._task is not None:
            self.bar.remove_task(self._task)
            self._task = None
        mark = "ok  " if status == "SUCCESS" else "FAIL"
        summary = self.summary if status == "SUCCESS" else ""
        self.console.print(f"  {mark} {self.step:<16} {elapsed:6.1f} s  {summary}", markup=False)

    def failure(self) -> str:
        """The step's own error line, else the last lines it printed."""
        where = f"{self.pipeline} · {self.step}: " if self.step else f"{self.pipeline}: "
        return where + (self.error or " | ".join(list(self.tail)[-3:]) or "ended without a message")


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


def data_version(paths: list[str]) -> str:
    """Hash of names, sizes and modification times below local `paths`; an s3:// prefix counts as always new."""
    digest = hashlib.sha256()
    for text in paths:
        if text.startswith("s3://"):
            digest.update(str(time.time_ns()).encode())
            continue
        root = Path(text)
        files = sorted(root.rglob("*")) if root.is_dir() else [root]
        for path in files:
            if path.is_file():
                stat = path.stat()
                digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def execute(order: dict[str, Any], pipelines: dict[str, Callable[..., Any]]) -> None:
    """The child's work: run the pipeline with kfp.local and write its outputs beside the log."""
    from kfp import local

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
    from hounsfield.pipelines.catalog import PIPELINES

    try:
        execute(json.loads(sys.argv[1]), PIPELINES)
    except RuntimeError as failure:
        sys.exit(str(failure))
