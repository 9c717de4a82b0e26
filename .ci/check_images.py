"""Holds the runs in containers against those in processes. Usage: check_images.py PROCESSES CONTAINERS"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from hounsfield.pool import USER


def outcome(out: Path) -> dict[str, Any]:
    """Figures, hash of the weights and owner of the model of a run."""
    result = json.loads((out / "result.json").read_text())
    model = Path(result["model"])
    return {
        "metrics.json": json.loads((Path(result["evaluation"]) / "metrics.json").read_text()),
        "weights": hashlib.sha256((model / "weights.safetensors").read_bytes()).hexdigest(),
        "model URI": result["model_uri"],
        "owner": model.stat().st_uid,
    }


processes, containers = (Path(text) for text in sys.argv[1:])
checks = {}
for task in ("lung-tumour", "l3-slice"):
    here, there = outcome(processes / task), outcome(containers / task)
    for name in ("metrics.json", "weights", "model URI"):
        checks[f"{task}: {name} of containers and processes are equal"] = here[name] == there[name]
    owner = os.getuid() or USER
    checks[f"{task}: the model of the containers belongs to user {owner}"] = there["owner"] == owner
    checks[f"{task}: the figures are numbers"] = here["metrics.json"]["pooled"]["average_precision"] is not None
for text, holds in checks.items():
    print("ok  " if holds else "FAIL", text)
sys.exit(not all(checks.values()))
