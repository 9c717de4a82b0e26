"""Every pipeline by the name that users type."""

from collections.abc import Callable
from typing import Any

from hounsfield.pipelines.l3_slice import l3_slice
from hounsfield.pipelines.l3_slice_study import l3_slice_study
from hounsfield.pipelines.lung_tumour import lung_tumour
from hounsfield.pipelines.lung_tumour_ablation import lung_tumour_ablation
from hounsfield.pipelines.retrain import retrain

PIPELINES: dict[str, Callable[..., Any]] = {
    "lung-tumour": lung_tumour,
    "l3-slice": l3_slice,
    "lung-tumour-ablation": lung_tumour_ablation,
    "l3-slice-study": l3_slice_study,
    "retrain": retrain,
}
