"""The self-contained HTML report of an evaluation, and its figures as files; what both tasks share."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from hounsfield.data.evaluation import FIGURES, REPORT
from hounsfield.evaluation import figures
from hounsfield.evaluation.metrics import counted
from hounsfield.metrics.histogram import ScoreHistogram
from hounsfield.pages import render
from hounsfield.plots import png, svg

UNDEFINED = "–"
SPLIT_NAMES = {
    "test": "unseen test patients",
    "val": "validation patients",
    "train": "training patients",
    "all": "patients of every split",
}


@dataclass
class Page:
    """What the template shows, in its order."""

    title: str
    meaning: list[str]
    tiles: list[dict[str, str]]
    comparison: dict[str, Any]
    audit: list[str]
    listing: dict[str, Any]
    subgroups: dict[str, Any] = field(default_factory=dict)
    plots: list[dict[str, str]] = field(default_factory=list)
    cases: list[dict[str, Any]] = field(default_factory=list)


class ReportWriter:
    """Writes report.html and figures/*.png into the directory of an evaluation."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / FIGURES).mkdir()

    def plot(self, page: Page, name: str, figure: Figure, caption: str) -> None:
        """Add a figure drawn in the page as SVG."""
        self._png(name, figure)
        page.plots.append({"svg": svg(figure), "caption": caption})

    def case_group(
        self, page: Page, name: str, legend: str, outlines: bool, cases: Iterable[tuple[Figure, str]]
    ) -> None:
        """Add figures with pixels and their captions, embedded as PNG, under the heading "NAME cases"."""
        shown = [
            {"image": b64encode(self._png(f"{name}_{place}", figure)).decode("ascii"), "caption": caption}
            for place, (figure, caption) in enumerate(cases, 1)
        ]
        if shown:
            title = f"{name.capitalize()} cases"
            page.cases.append({"title": title, "legend": legend, "outlines": outlines, "cases": shown})

    def curve(self, page: Page, metrics: dict[str, Any], histogram: ScoreHistogram) -> None:
        """Add the pooled precision-recall curve, if there is one."""
        pooled, average = metrics["pooled"], histogram.average_precision()
        if average is None:
            return
        point = (pooled["recall"], pooled["precision"])
        figure = figures.precision_recall(histogram.curve(), average, point, metrics["threshold"], pooled["prevalence"])
        certainty = f"certain to lie in [{average.lower:.5f}, {average.upper:.5f}]" if average.width else "exact"
        caption = (
            f"Over {histogram.positives:,} positive and {histogram.negatives:,} negative {pooled['unit']}s. "
            f"AP {average.value:.5f}, {certainty}."
        )
        self.plot(page, "pr_curve", figure, caption)

    def write(self, page: Page, metrics: dict[str, Any], card: str) -> None:
        """Write report.html, which ends with the model card `card` (Markdown)."""
        html = render(
            Path(__file__).with_name("report.html.j2"),
            **vars(page),
            subtitle=f"{counted(metrics['patients'], 'patient')}, {metrics['series']} series, "
            f"{counted(metrics['slices'], 'slice')}, {patients_of(metrics)}; "
            f"threshold {metrics['threshold']:g}",
            caveats=metrics["caveats"],
            colours={"truth": figures.OVERLAY_TRUTH, "prediction": figures.OVERLAY_PREDICTION},
            card=card_html(card),
        )
        (self.directory / REPORT).write_text(html, encoding="utf-8")

    def _png(self, name: str, figure: Figure) -> bytes:
        data = png(figure)
        (self.directory / FIGURES / f"{name}.png").write_bytes(data)
        return data


def card_html(text: str) -> str:
    """A model card as HTML, headings one level lower, for a page that has its own title.

    Markdown of which only the named rules hold: HTML, links and images in the text stay text.
    """
    parser = MarkdownIt("zero").enable(["heading", "list", "table", "backticks", "emphasis", "escape"])
    tokens = parser.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{int(token.tag[1:]) + 1}"
    return str(parser.renderer.render(tokens, parser.options, {}))


def patients_of(metrics: dict[str, Any]) -> str:
    """What the evaluated patients are to the model; test patients that chose it are no longer unseen."""
    chosen = metrics["split"] == "test" and metrics["model"]["validation"] == "test"
    return "test patients" if chosen else SPLIT_NAMES[metrics["split"]]


def number(value: float | None, form: str = ".3f") -> str:
    """A figure for people; a dash when it is undefined."""
    return UNDEFINED if value is None else format(value, form)


def tile(name: str, value: float | None, form: str = ".3f") -> dict[str, str]:
    """A headline figure."""
    return {"name": name, "value": number(value, form)}


def mean_sd(values: dict[str, Any], name: str, form: str = ".3f") -> str:
    """Mean ± SD of `name`."""
    return f"{number(values[f'{name}_mean'], form)} ± {number(values[f'{name}_sd'], form)}"


def worst_and_best(ranked: Sequence[Any], count: int) -> dict[str, list[Any]]:
    """The first `count` and the last, best first, of a list ranked worst first; none appears twice."""
    return {"worst": list(ranked[:count]), "best": list(ranked[max(count, len(ranked) - count) :])[::-1]}
