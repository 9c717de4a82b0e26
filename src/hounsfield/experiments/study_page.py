"""The report of the L3 study."""

from pathlib import Path
from typing import Any

from hounsfield.evaluation.metrics import counted
from hounsfield.experiments.page import Page, number
from hounsfield.experiments.study import ARMS
from hounsfield.experiments.study_figures import draw
from hounsfield.experiments.study_tables import Table, mark, spread, tables


def study_page(directory: Path, summary: dict[str, Any]) -> Page:
    """The report of a summary (of `study.summarise`) in `directory`, with its figures and tables written there.

    Add `provenance` and call `write`.
    """
    rows, columns = summary["image_size"]
    page = Page(
        directory,
        f"L3 slice study{mark(summary)}",
        f"{counted(summary['patients'], 'patient')} ({summary['data']}), {len(summary['folds'])}-fold "
        f"cross-validation, {counted(len(summary['seeds']), 'seed')}, {summary['architecture']} at "
        f"{rows}x{columns} pixels, {counted(summary['epochs'] or 0, 'epoch')}",
    )
    page.meaning = [
        "Control searches the five hyperparameters of the training; proposed searches the two correction design "
        "parameters (CDP: over-sampling rate and class weight) as well. Every patient is tested once in each arm and "
        "seed, by the model of the fold that held it out; the figures are over all of these predictions.",
        "The slice error is the distance between the predicted and the true centre of L3; a series without a positive "
        "slice counts as not detected, and its error still counts.",
    ]
    page.caveats = summary["notes"]
    for arm in ARMS:
        own = summary["arms"][arm]
        page.tile(f"slice error, {arm}{mark(own)}", spread(own, "slice_error"))
    page.tile("difference, proposed minus control", number(summary["comparison"]["mean_difference"], "+.2f"))
    for arm in ARMS:
        page.tile(f"R², {arm}", number(summary["arms"][arm]["r2"]))
    for arm in ARMS:
        page.tile(f"detection rate, {arm}", number(summary["arms"][arm]["detection_rate"], ".1%"))
    paper, errors, pairs, parameters = tables(summary)
    _add(page, paper, marked=range(len(paper.rows) - len(ARMS), len(paper.rows)))
    _add(page, errors)
    _add(page, pairs, *(verdict(claim) for claim in summary["claims"]))
    page.section("Figures 3 and 4")
    for name, figure, caption in draw(summary):
        page.figure(name, figure, caption)
    _add(page, parameters)
    return page


def verdict(claim: dict[str, Any]) -> str:
    """A claim of the paper with what became of it here."""
    holds = {True: "holds", False: "does not hold", None: "cannot be judged"}[claim["holds"]]
    judged = claim["seeds_judged"]
    seeds = f"holds in {claim['seeds_holding']} of {counted(judged, 'seed')}" if judged > 1 else ""
    return f"Claim “{claim['claim']}”: {'; '.join(filter(None, [holds, seeds]))}{mark(claim)}. {claim['detail']}"


def _add(page: Page, table: Table, *paragraphs: str, marked: range = range(0)) -> None:
    page.section(table.title, *paragraphs)
    page.table(table.name, table.columns, table.rows, table.note, marked)
