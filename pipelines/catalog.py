"""Every pipeline by the name that users type."""

from collections.abc import Callable
from typing import Any

from hounsfield.pipelines.l3_slice import l3_slice
from hounsfield.pipelines.lung_tumour import lung_tumour

PIPELINES: dict[str, Callable[..., Any]] = {"lung-tumour": lung_tumour, "l3-slice": l3_slice}
