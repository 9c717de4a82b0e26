r"""Can F1, precision and recall belong together?

Let H(P, R) = 2PR / (P + R).

*Pooled*: counted over all pixels at once, F1 = 2TP/(2TP+FP+FN) = H(P, R) exactly, so printed figures must satisfy it up
to their rounding.

*Averaged*: with p_i, r_i and f_i = H(p_i, r_i) of image (or patient) i, and P, R, F1 their means over the same images,

    max(0, P + R - 1)  <=  F1  <=  H(P, R).

Above: H is homogeneous of degree 1 and concave for p, r >= 0 (its Hessian is -4 / (p+r)^3 times the outer product of
(r, -p) with itself), so the mean of H is at most H of the means (Jensen), with weights or without. Below:
H(p, r) >= p + r - 1 on [0, 1]^2, because H - (p + r - 1) = (p + r)(1 - p - r) + 2pr over p + r, whose numerator is
p(1 - p) + r(1 - r) >= 0. Both bounds are attained. That F1 lies between P and R holds for pooled figures only: the
images (p, r) = (1, 0) and (0, 1) have P = R = 1/2 and F1 = 0.

An F1 above H(P, R) or below P + R - 1 is therefore *impossible*, however the figures were averaged; one between the
bounds that is not H(P, R) is merely *not a pooled triple*. The means must be of the same images: where a precision
without any prediction is left out of P alone, nothing is implied.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

Figure = float | str
Verdict = Literal["consistent", "not pooled", "impossible", "undefined"]


@dataclass(frozen=True)
class Audit:
    """A verdict on F1, precision and recall. `f1_recomputed` is H(P, R), `f1_difference` F1 minus it.

    `consistent`: a pooled triple; `not pooled`: possible for means over images only; `impossible`: for neither;
    `undefined`: a figure is missing.
    """

    verdict: Verdict
    f1_recomputed: float | None
    f1_difference: float | None

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        if self.f1_difference is None:
            return "F1 cannot be recomputed: F1, precision or recall is undefined."
        size = f"{abs(self.f1_difference):.2g}"
        side = "above" if self.f1_difference > 0 else "below"
        if self.verdict == "consistent":
            return "F1 is 2PR/(P+R) of precision and recall."
        if self.verdict == "not pooled":
            return (
                f"Not a pooled triple: F1 is {size} below 2PR/(P+R). A mean of F1 over images can be, with the means "
                "of precision and recall."
            )
        return (
            f"Impossible: F1 is {size} {side} 2PR/(P+R), which neither pooled figures nor means over images "
            "with this precision and recall can be."
        )


def audit(
    precision: Figure | None, recall: Figure | None, f1: Figure | None, tolerance: float = 1e-9, whole: int = 1
) -> Audit:
    """Check F1 against precision and recall.

    Args:
        precision, recall, f1: numbers, taken as exact, or printed text such as "87.31", which stands for everything
            within half a unit of its last digit; None where undefined.
        tolerance: F1 may be this far outside what precision and recall allow.
        whole: 100 for figures in percent, 1 for fractions.
    """
    if precision is None or recall is None or f1 is None:
        return Audit("undefined", None, None)
    (p, p_half), (r, r_half), (f, f_half) = map(_interval, (precision, recall, f1))
    allowed = f_half + Decimal(tolerance)
    none = Decimal(0)
    lowest = _harmonic(max(p - p_half, none), max(r - r_half, none))
    highest = _harmonic(p + p_half, r + r_half)
    verdict: Verdict
    if lowest - allowed <= f <= highest + allowed:
        verdict = "consistent"
    elif max(none, p - p_half + r - r_half - whole) - allowed <= f <= highest + allowed:
        verdict = "not pooled"
    else:
        verdict = "impossible"
    value = _harmonic(p, r)
    return Audit(verdict, float(value), float(f - value))


def _interval(figure: Figure) -> tuple[Decimal, Decimal]:
    """Value and half a unit of the last printed digit (0 for a number)."""
    value = Decimal(figure)
    if not isinstance(figure, str):
        return value, Decimal(0)
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)
    return value, Decimal(5).scaleb(exponent - 1)


def _harmonic(p: Decimal, r: Decimal) -> Decimal:
    """2pr / (p + r), continued by 0; increasing in both."""
    return 2 * p * r / (p + r) if p + r else Decimal(0)
