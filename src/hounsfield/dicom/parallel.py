"""Threads over many small pieces of work."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def batched_map(pool: Executor, function: Callable[[T], R], items: Sequence[T], batch: int) -> Iterator[R]:
    """`function` of every item, in order, `batch` items to a task: a task's overhead is that of reading a slice."""

    def work(start: int) -> list[R]:
        return [function(item) for item in items[start : start + batch]]

    for results in pool.map(work, range(0, len(items), batch)):
        yield from results
