"""Progress of long work: a bar on a terminal, plain lines elsewhere (a pod's log, a pipeline's child process)."""

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")
_LINE = re.compile(r"progress (?P<label>[\w -]+?) (?P<done>\d+)/(?P<total>\d+)(?: (?P<detail>.*))?$")


def _seconds_between_lines() -> float:
    """A pipeline's parent process wants a steady stream for its bar, a log only a sign of life."""
    return 2.0 if os.environ.get("_KFP_RUNTIME") else 10.0


@dataclass(frozen=True)
class ProgressLine:
    """One parsed line of a child process, as `format_line` writes it."""

    label: str
    done: int
    total: int
    detail: str


def format_line(label: str, done: int, total: int, detail: str = "") -> str:
    """`progress LABEL DONE/TOTAL DETAIL`, the form that `parse_line` reads back."""
    return f"progress {label} {done}/{total} {detail}".rstrip()


def parse_line(line: str) -> ProgressLine | None:
    """The progress that `line` reports, or None."""
    match = _LINE.match(line.strip())
    if match is None:
        return None
    return ProgressLine(match["label"], int(match["done"]), int(match["total"]), match["detail"] or "")


_listener: ContextVar[Callable[[ProgressLine], None] | None] = ContextVar("listener", default=None)


@contextmanager
def reported_to(listener: Callable[[ProgressLine], None]) -> Iterator[None]:
    """Progress that is begun inside the block, on this thread, goes to `listener` and is not shown itself."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


class Progress:
    """Reports `done` of `total` units of work under `label`.

    On a terminal it draws a rich bar; otherwise it prints `progress LABEL DONE/TOTAL DETAIL` every few
    seconds, and always the last line. Use as a context manager and call `advance`.
    """

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total, self.done = label, total, 0
        self._detail = ""
        self._last_line, self._pause = time.monotonic(), _seconds_between_lines()
        self._bar = None
        self._listener = _listener.get()
        if self._listener is None and sys.stderr.isatty() and not os.environ.get("CI"):
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[detail]}"),
            )
            self._bar = RichProgress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(label, total=total, detail="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, units: int = 1, detail: str | None = None) -> None:
        """Count `units` more as done; `detail` (such as `loss=0.31`) replaces the text beside the bar."""
        self.done += units
        self._detail = self._detail if detail is None else detail
        if self._listener is not None:
            self._listener(ProgressLine(self.label, self.done, self.total, self._detail))
            return
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, detail=self._detail)
            return
        now = time.monotonic()
        if self.done >= self.total or now - self._last_line >= self._pause:
            self._last_line = now
            print(format_line(self.label, self.done, self.total, self._detail), flush=True)


def track(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    """Yield `items`, reporting progress after each."""
    with Progress(label, total) as progress:
        for item in items:
            yield item
            progress.advance()
