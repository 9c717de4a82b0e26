"""The report of an experiment: one self-contained page, its figures as PNG and SVG, its tables as CSV."""

import csv
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from hounsfield import plots
from hounsfield.pages import render

FIGURES = "figures"
REPORT = "report.html"
UNDEFINED = "–"


@dataclass
class Section:
    """A heading with paragraphs, then tables and figures in the order they were added."""

    title: str
    paragraphs: list[str] = field(default_factory=list)
    blocks: list[dict[str, Any]] = field(default_factory=list)


class Page:
    """Collects the sections of a report in `directory`; `write` renders report.html."""

    def __init__(self, directory: Path, title: str, subtitle: str) -> None:
        self.directory, self.title, self.subtitle = directory, title, subtitle
        self.meaning: list[str] = []
        self.caveats: list[str] = []
        self.tiles: list[dict[str, str]] = []
        self.sections: list[Section] = []
        self.provenance: list[tuple[str, str]] = []
        (directory / FIGURES).mkdir(exist_ok=True)

    def section(self, title: str, *paragraphs: str) -> Section:
        """Start a section; tables and figures go into the newest one."""
        self.sections.append(Section(title, list(paragraphs)))
        return self.sections[-1]

    def tile(self, name: str, value: str) -> None:
        """Add a headline figure."""
        self.tiles.append({"name": name, "value": value})

    def table(
        self,
        name: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        note: str = "",
        marked: Sequence[int] = (),
        text: bool = False,
    ) -> None:
        """Add a table and write it to NAME.csv.

        Args:
            note: sentence below the table.
            marked: places of the rows that stand out.
            text: cells are words, set from the left and wrapped, not figures.
        """
        with (self.directory / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([columns, *rows])
        block = {"columns": columns, "rows": rows, "note": note, "marked": set(marked), "text": text}
        self.sections[-1].blocks.append({"table": block})

    def figure(self, name: str, figure: Figure, caption: str, *, wide: bool = True, pixels: bool = False) -> None:
        """Add a figure and write figures/NAME.png and .svg.

        Args:
            wide: over the whole width of the page; else beside the next one that is not wide.
            pixels: it shows images, which the page embeds as PNG instead of SVG.
        """
        png, svg = plots.png(figure, dpi=150), plots.svg(figure)
        (self.directory / FIGURES / f"{name}.png").write_bytes(png)
        (self.directory / FIGURES / f"{name}.svg").write_text(svg, encoding="utf-8")
        shown = {"png": b64encode(png).decode("ascii")} if pixels else {"svg": unique(svg, name)}
        self.sections[-1].blocks.append({"figure": {**shown, "caption": caption, "wide": wide}})

    def write(self) -> None:
        """Write report.html."""
        content = {name: value for name, value in vars(self).items() if name != "directory"}
        template = Path(__file__).with_name("report.html.j2")
        html = render(template, **content, version=version("hounsfield"))
        (self.directory / REPORT).write_text(html, encoding="utf-8")


def unique(svg: str, name: str) -> str:
    """`svg` with identifiers of its own: two figures in one page must not share those of clip paths and glyphs."""
    for quoted in ('id="', 'href="#', "url(#"):
        svg = svg.replace(quoted, f"{quoted}{name}-")
    return svg


def number(value: float | None, form: str = ".3f") -> str:
    """A figure for people; a dash when it is undefined."""
    return UNDEFINED if value is None else format(value, form)


def mean_sd(mean: float | None, sd: float | None, form: str = ".3f") -> str:
    """`0.812 ± 0.010`; only the mean when there is a single value."""
    return number(mean, form) if sd is None else f"{number(mean, form)} ± {number(sd, form)}"
