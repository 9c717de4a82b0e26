"""Body composition on an axial slice at L3: areas and attenuation of adipose tissue and muscle."""

from hounsfield.body.composition import (
    GREATEST_HEIGHT,
    LEAST_HEIGHT,
    TISSUES,
    Composition,
    Measure,
    composition,
)
from hounsfield.body.overlay import overlay

__all__ = ["GREATEST_HEIGHT", "LEAST_HEIGHT", "TISSUES", "Composition", "Measure", "composition", "overlay"]
