"""`hounsfield papers` on pipelines that answer at once, and the check of its figures."""

import copy
import csv
import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hounsfield.cli import papers
from hounsfield.errors import InputError
from hounsfield.experiments.printed import TABLE_1
from hounsfield.pipelines.catalog import PIPELINES
from hounsfield.pipelines.inputs import parse_settings
from hounsfield.pipelines.local import PipelineRun

CHECK = Path(__file__).parents[1] / ".ci" / "check_papers.py"
CLAIMS = {
    "lung-tumour-ablation": {"claim": "CL > FL > BL", "holds": False, "seeds_holding": 1, "seeds_judged": 2},
    "l3-slice-study": {
        "claim": "CDP lowers the error", "holds": True, "seeds_holding": 2, "seeds_judged": 2, "detail": "by 0.5",
    },
}  # fmt: skip


def figures_of(pipeline: str, seeds: int) -> dict[str, Any]:
    """The part of an experiment's summary.json that others read, with figures that keep every promise."""
    common = {"claims": [CLAIMS[pipeline]], "notes": ["Few patients."], "optimistic": False}
    if pipeline == "lung-tumour-ablation":
        by_seed = {str(seed): {"average_precision": 0.9 - 0.01 * seed} for seed in range(seeds)}
        rows = [{"run": row.run, "by_seed": by_seed, "missing_seeds": []} for row in TABLE_1]
        return common | {"rows": copy.deepcopy(rows)}
    figures = {"slice_error_mean": 0.5, "detection_rate": 0.9}
    arm = {"missing": [], "by_seed": {str(seed): dict(figures) for seed in range(seeds)}}
    return common | {"arms": {"control": arm, "proposed": copy.deepcopy(arm)}}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path, dict[str, str]]]:
    """Pipelines and phantoms that answer at once; the calls they were asked for."""
    asked: list[tuple[str, Path, dict[str, str]]] = []

    def run_task(
        pipeline: str, data: list[str], cases: Path, out: Path, settings: list[str]
    ) -> tuple[PipelineRun, dict[str, Any]]:
        given = dict(setting.split("=", 1) for setting in settings)
        asked.append((pipeline, cases, given))
        artifact = out / "summary"
        artifact.mkdir(parents=True)
        (out / "report.html").write_text("<html></html>")
        for experiment in papers.EXPERIMENTS.values():
            if experiment.pipeline == pipeline:
                for table in experiment.tables:
                    with (artifact / f"{table}.csv").open("w", newline="", encoding="utf-8") as file:
                        csv.writer(file).writerows([["run", "AP"], [f"{table} of {pipeline}", "0.9"]])
        outputs = {"report": str(out / "report.html"), "summary": str(artifact)}
        return PipelineRun(outputs, {"train-unet": 12.5}), figures_of(pipeline, int(given["seeds"]))

    def write_cohort(region: str, out: Path, **cohort: Any) -> Path:
        assert cohort == papers.COHORTS[region]
        out.mkdir(parents=True)
        (out / "cases.csv").write_text("image,label\n")
        return out / "cases.csv"

    monkeypatch.setattr(papers, "run_task", run_task)
    monkeypatch.setattr("hounsfield.phantom.write_cohort", write_cohort)
    monkeypatch.setenv("HOUNSFIELD_PSEUDONYM_KEY", "restored after the test")
    return asked


@pytest.mark.parametrize(("able", "precision"), [(True, "bf16"), (False, "fp32")])
def test_summary_has_the_figures_and_settings_of_both(
    calls: list[tuple[str, Path, dict[str, str]]], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, able: bool, precision: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("hounsfield.inference.has_bf16", lambda device: able)
    papers.run_papers(tmp_path, seeds=2)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [pipeline for pipeline, _, _ in calls] == ["lung-tumour-ablation", "l3-slice-study"]
    assert summary["seeds"] == 2
    assert summary["seconds"]["lung-tumour-ablation train-unet"] == 12.5
    assert {"chest phantoms", "abdomen phantoms", "total"} < set(summary["seconds"])
    for pipeline, cases, given in calls:
        own = summary[pipeline]
        assert own["settings"] == papers.SETTINGS[pipeline] | {"seeds": 2, "precision": precision}
        assert given == {key: str(value) for key, value in own["settings"].items()}
        assert {key: own[key] for key in figures_of(pipeline, 2)} == figures_of(pipeline, 2)
        assert cases.is_file()
    printed = capsys.readouterr().out
    assert "table_1 of lung-tumour-ablation  0.9" in printed
    assert "table_2 of l3-slice-study  0.9" in printed
    assert "does not hold   CL > FL > BL  (1 of 2)" in printed
    assert "holds           CDP lowers the error  (2 of 2)  by 0.5" in printed
    assert "note: Few patients." in printed


def test_one_experiment_runs_alone_and_phantoms_are_made_once(
    calls: list[tuple[str, Path, dict[str, str]]], tmp_path: Path
) -> None:
    papers.run_papers(tmp_path / "a", only="l3")
    assert [pipeline for pipeline, _, _ in calls] == ["l3-slice-study"]
    assert "lung-tumour-ablation" not in json.loads((tmp_path / "a" / "summary.json").read_text())
    assert papers.phantoms("abdomen", tmp_path / "a" / "data") == calls[0][1]
    with pytest.raises(InputError, match="--only kidney: expected lung or l3"):
        papers.run_papers(tmp_path, only="kidney")


@pytest.mark.parametrize("pipeline", sorted(papers.SETTINGS))
def test_settings_are_inputs_of_the_pipeline(pipeline: str) -> None:
    settings = papers.SETTINGS[pipeline] | {"seeds": 3}
    parsed = parse_settings(PIPELINES[pipeline], [f"{key}={value}" for key, value in settings.items()])
    assert parsed == settings


def test_help_names_the_options() -> None:
    command = [sys.executable, "-c", "from hounsfield.cli.main import main; main()", "papers", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(option in done.stdout for option in ("--seeds", "--only", "--out"))


@pytest.fixture
def good(calls: list[tuple[str, Path, dict[str, str]]], tmp_path: Path) -> dict[str, Any]:
    papers.run_papers(tmp_path, seeds=2)
    summary: dict[str, Any] = json.loads((tmp_path / "summary.json").read_text())
    return summary


def checked(summary: dict[str, Any], path: Path) -> subprocess.CompletedProcess[str]:
    path.write_text(json.dumps(summary))
    return subprocess.run([sys.executable, str(CHECK), str(path)], capture_output=True, text=True)


def test_check_passes_on_figures_that_keep_the_promises(good: dict[str, Any], tmp_path: Path) -> None:
    done = checked(good, tmp_path / "copy.json")
    assert done.returncode == 0, done.stdout
    assert "FAIL" not in done.stdout
    assert done.stdout.count("average precision") == 9


def of_row(run: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def find(summary: dict[str, Any]) -> dict[str, Any]:
        row: dict[str, Any] = next(row for row in summary["lung-tumour-ablation"]["rows"] if row["run"] == run)
        return row

    return find


BROKEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "SegNet+BL average precision 0.590 >= 0.6": lambda s: of_row("SegNet+BL")(s)["by_seed"]["1"].update(
        average_precision=0.59
    ),
    "U-Net+CL average precision 0.840 >= 0.85": lambda s: of_row("U-Net+CL")(s)["by_seed"]["0"].update(
        average_precision=0.84
    ),
    "E-Net+FL average precision undefined >= 0.6": lambda s: of_row("E-Net+FL")(s)["by_seed"]["0"].update(
        average_precision=None
    ),
    "8 runs of 9": lambda s: of_row("E-Net+CL")(s).update(by_seed={}),
    "mean error 1.010 <= 1.0": lambda s: s["l3-slice-study"]["arms"]["proposed"]["by_seed"]["1"].update(
        slice_error_mean=1.01
    ),
    "detection rate 0.840 >= 0.85": lambda s: s["l3-slice-study"]["arms"]["proposed"]["by_seed"]["1"].update(
        detection_rate=0.84
    ),
    "mean error undefined": lambda s: s["l3-slice-study"]["arms"]["proposed"]["by_seed"]["1"].update(
        slice_error_mean=None
    ),
    "both arms have every fold": lambda s: s["l3-slice-study"]["arms"]["control"].update(missing=[{"fold": 1}]),
    "no figure is optimistic": lambda s: s["l3-slice-study"].update(optimistic=True),
    "reports exist": lambda s: s["lung-tumour-ablation"].update(report="/does/not/exist.html"),
    "l3-slice-study is in the summary": lambda s: s.pop("l3-slice-study"),
}


def test_check_fails_on_each_broken_promise(good: dict[str, Any]) -> None:
    checks = runpy.run_path(str(CHECK))["checks"]
    assert all(checks(good).values())
    for sentence, damage in BROKEN.items():
        bad = copy.deepcopy(good)
        damage(bad)
        failed = [text for text, holds in checks(bad).items() if not holds]
        assert any(sentence in text for text in failed), (sentence, failed)


def test_check_exits_with_an_error(good: dict[str, Any], tmp_path: Path) -> None:
    good["l3-slice-study"]["optimistic"] = True
    done = checked(good, tmp_path / "bad.json")
    assert done.returncode == 1
    assert "FAIL no figure is optimistic" in done.stdout
