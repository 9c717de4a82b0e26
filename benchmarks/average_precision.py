"""Average precision over N scores: ours against scikit-learn and torchmetrics, interleaved in one run.

    python benchmarks/average_precision.py [--scores 5000000] [--rounds 3] [--out FILE.json]

Prints medians, the factor by which each contender takes longer than ours, and its distance from scikit-learn's value.
The limit reads scores and labels once.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torchmetrics.functional.classification import binary_average_precision

from hounsfield.metrics.histogram import ScoreHistogram

OURS, PEER = "ours, histogram", "scikit-learn"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scores", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    generator = np.random.default_rng(0)
    labels = generator.random(arguments.scores) < 0.02
    scores = generator.normal(scale=2, size=arguments.scores).astype(np.float32)
    scores += np.where(labels, 2, -3).astype(np.float32)
    tensor, target = torch.from_numpy(scores), torch.from_numpy(labels.astype(np.int64))
    width = 0.0

    def limit() -> float:
        return float(scores.sum()) + float(labels.sum())

    def ours() -> float:
        nonlocal width
        histogram = ScoreHistogram()
        histogram.update(scores, labels)
        average = histogram.average_precision()
        assert average is not None
        width = average.width
        return average.value

    contenders: dict[str, Callable[[], float]] = {
        "limit: read the data": limit,
        OURS: ours,
        PEER: lambda: float(average_precision_score(labels, scores)),
        "torchmetrics, exact": lambda: float(binary_average_precision(tensor, target, validate_args=False)),
    }
    ScoreHistogram().update(scores[:10], labels[:10])
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    values: dict[str, float] = {}
    for _ in range(arguments.rounds):
        for name, contender in contenders.items():
            start = time.perf_counter()
            values[name] = contender()
            seconds[name].append(time.perf_counter() - start)

    medians = {name: statistics.median(times) for name, times in seconds.items()}
    rows = [
        {
            "contender": name,
            "seconds": median,
            "ratio_to_ours": median / medians[OURS],
            "error": None if name.startswith("limit") else abs(values[name] - values[PEER]),
        }
        for name, median in medians.items()
    ]
    print(f"{arguments.scores:,} scores, medians of {arguments.rounds} interleaved rounds")
    for row in rows:
        error = "" if row["error"] is None else f"   error {row['error']:.1e}"
        print(f"{row['contender']:30} {row['seconds']:8.3f} s {row['ratio_to_ours']:8.2f} x ours{error}")
    print(f"width of our certified interval {width:.1e}")
    if arguments.out:
        arguments.out.write_text(json.dumps({"benchmark": "average precision", "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
