"""Holds the demo's figures against what it promises."""

import json
import sys
from pathlib import Path

summary = json.loads(Path(sys.argv[1]).read_text())
lung, l3 = summary["lung-tumour"], summary["l3-slice"]
checks = {
    f"lung-tumour: {lung['patients']} unseen test patients >= 6": lung["patients"] >= 6,
    f"lung-tumour: F1 {lung['f1']:.3f} >= 0.80": lung["f1"] >= 0.80,
    f"lung-tumour: average precision {lung['average_precision']:.3f} >= 0.85": lung["average_precision"] >= 0.85,
    f"l3-slice: {l3['patients']} unseen test patients >= 6": l3["patients"] >= 6,
    f"l3-slice: slice error {l3['slice_error_mean']:.2f} <= 1.0": l3["slice_error_mean"] <= 1.0,
    f"l3-slice: detection rate {l3['detection_rate']:.2f} = 1.0": l3["detection_rate"] == 1.0,
    "reports exist": all(Path(part["report"]).is_file() for part in (lung, l3)),
}
for text, holds in checks.items():
    print("ok  " if holds else "FAIL", text)
print(f"note demo: {summary['seconds']['total']:.0f} s; 480 s are meant to suffice on two cores that do nothing else")
sys.exit(not all(checks.values()))
