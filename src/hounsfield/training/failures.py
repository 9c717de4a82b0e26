"""What ends a training from outside: a request to stop, or too little memory."""

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

import torch

from hounsfield.errors import OutOfMemory

_MEMORY_WORDS = (
    "out of memory",
    "you tried to allocate",
    "std::bad_alloc",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


class Preemption:
    """While open, SIGTERM only sets `requested`; afterwards the handler that was there before is back.

    Outside of the main thread, where Python allows no handler, nothing is ever requested. With `forward` the signal is
    passed on to this process's children.
    """

    def __init__(self, forward: bool = False) -> None:
        self.requested, self.forward = False, forward
        self._before: Any = None
        self._installed = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._request)
            self._installed = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGTERM, signal.SIG_DFL if self._before is None else self._before)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if self.forward:
            for child in multiprocessing.active_children():
                child.terminate()


@contextmanager
def memory_errors(batch_size: int, shape: tuple[int, int]) -> Iterator[None]:
    """Turn every way in which memory runs out into one sentence that says what to lower.

    Raises:
        OutOfMemory: names batch size and image size (rows, columns).
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"memory does not suffice for batches of {batch_size} images of {shape[0]}x{shape[1]} with this network "
            f"({_first_line(error)}): lower the batch size or the image size"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's, a GPU's, or on a CPU torch's, which is a plain RuntimeError."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error) for words in _MEMORY_WORDS)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
