"""How every figure looks, and figures as files: blue and orange, told apart by colour-blind readers."""

from contextlib import AbstractContextManager
from io import BytesIO, StringIO
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

BLUE, ORANGE, INK, MUTED = "#2f7fd6", "#e8710a", "#1f2933", "#7b8794"
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.hashsalt": "hounsfield",
}


def style() -> AbstractContextManager[None]:
    """The fonts, colours and lines of every figure; draw inside of it."""
    return mpl.rc_context(STYLE)


def svg(figure: Figure) -> str:
    """The figure as an `<svg>` element; the same figure gives the same text."""
    text = StringIO()
    with style():
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as a PNG file."""
    buffer = BytesIO()
    with style():
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
