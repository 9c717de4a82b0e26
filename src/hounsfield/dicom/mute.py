"""Silence for C libraries that print to the error stream, file names included."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_lock = Lock()
_inside = 0
_saved = -1


@contextmanager
def muted_libraries() -> Iterator[None]:
    """Send file descriptor 2 to nowhere; threads may be inside together, the last one out restores it."""
    global _inside, _saved
    with _lock:
        if _inside == 0:
            _saved = os.dup(2)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                os.dup2(_saved, 2)
                os.close(_saved)
