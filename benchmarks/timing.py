"""Contenders timed in turn, so that a machine whose speed drifts slows all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each contender over `rounds` rounds in which each runs once, after one round not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for counted in [False] + [True] * rounds:
        for name, contender in contenders.items():
            start = time.perf_counter()
            contender()
            if counted:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def print_rates(title: str, medians: Mapping[str, float], items: int, unit: str, ours: str) -> None:
    """A Markdown table of items per second and the ratio of ours to each contender."""
    print(f"{title}\n\n| contender | {unit}/s | ours is x times as fast |\n|---|---|---|")
    for name, seconds in medians.items():
        print(f"| {name} | {items / seconds:,.0f} | {seconds / medians[ours]:.2f} |")
    print()
