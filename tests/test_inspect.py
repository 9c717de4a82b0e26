"""`hounsfield inspect`: each kind of artifact as JSON and as tables, and paths that are none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import tiny_evaluation, tiny_model

from hounsfield.cli.inspect import inspect
from hounsfield.data.arrow import write_slices
from hounsfield.data.comparison import Comparison, write_comparison
from hounsfield.data.series_store import Rejection, SeriesRow, SeriesStoreWriter
from hounsfield.data.slice_set import KIND, VERSION, SliceIndex, write_index
from hounsfield.errors import ArtifactError
from hounsfield.storage import write_manifest
from hounsfield.windowing import window_for


def series_row(key: str, **changes: Any) -> SeriesRow:
    values: dict[str, Any] = {
        "key": key,
        "patient": "p",
        "slices": 3,
        "rows": 4,
        "columns": 5,
        "spacing_slice": 2.5,
        "spacing_row": 0.75,
        "spacing_column": 0.7,
        "origin": [0.0, 0.0, 0.0],
        "direction": [0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0],
        "pixel_sha256": "a",
        "sop_sha256": "b",
        "source": "dicom",
    }
    return SeriesRow(**values | changes)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    writer = SeriesStoreWriter(folder)
    labelled = {"label_source": "seg", "label_voxels": 7, "label_first": 1, "label_last": 2, "flags": ["[resampled]"]}
    writer.add(series_row("s2", **labelled), [0.0, 2.5, 5.0], [0, 3, 4])
    writer.add(series_row("s1"), [0.0, 2.5, 5.0], [0, 0, 0])
    writer.reject(Rejection("k1", "not-dicom", "no DICOM file", files=4))
    writer.reject(Rejection("k2", "duplicate", "the same slice twice"))
    writer.reject(Rejection("k3", "not-dicom", "no DICOM file", files=2))
    writer.finish()
    return folder


def shown(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    inspect(path, as_json=True)
    described: dict[str, Any] = json.loads(capsys.readouterr().out)
    return described


def test_series_store_as_json(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    described = shown(store, capsys)
    dataset_hash = json.loads((store / "manifest.json").read_text())["dataset_hash"]
    common = {"shape": [3, 4, 5], "spacing": [2.5, 0.75, 0.7]}
    assert described == {
        "kind": "series-store",
        "dataset_hash": dataset_hash,
        "series": [
            {"key": "s1", **common, "label_voxels": 0, "label_slices": None, "flags": []},
            {"key": "s2", **common, "label_voxels": 7, "label_slices": [1, 2], "flags": ["[resampled]"]},
        ],
        "rejected": [{"reason": "duplicate", "count": 1}, {"reason": "not-dicom", "count": 6}],
    }


def test_series_store_for_people(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect(store, as_json=False)
    out = capsys.readouterr().out
    for part in ("2 series", "3 x 4 x 5", "2.5 x 0.75 x 0.7", "1 to 2", "[resampled]", "not-dicom", "6"):
        assert part in out


def test_slice_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    window = window_for("lung-tumour", size=4)
    write_slices(tmp_path / "images.arrow", {name: np.zeros((3, 4, 4), np.uint8) for name in ("image", "mask")})
    cases = [("p1", "train", 3), ("p1", "train", 0), ("p2", "test", 2)]
    write_index(tmp_path, [SliceIndex(p, f"s{p}", 0, 0.0, 1.0, 1.0, 1.0, split, 0, n) for p, split, n in cases])
    fields = {"task": "lung-tumour", "window": window.to_dict(), "size": [4, 4], "dataset_hash": "d", "hash": "h"}
    write_manifest(tmp_path, KIND, VERSION, **fields)
    described = shown(tmp_path, capsys)
    train = {"patients": 1, "series": 1, "slices": 2, "positive_slices": 1, "label_pixels": 3}
    test = {"patients": 1, "series": 1, "slices": 1, "positive_slices": 1, "label_pixels": 2}
    assert described == {
        "kind": "slice-set",
        **fields,
        "splits": {"train": train, "val": dict.fromkeys(train, 0), "test": test},
    }
    inspect(tmp_path, as_json=False)
    out = capsys.readouterr().out
    assert "positive slices" in out
    assert "-125" in out


def test_model_and_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_model(tmp_path)
    described = shown(model, capsys)
    assert (described["kind"], described["architecture"], described["epochs"]) == ("model", "unet", 2)
    evaluation = tiny_evaluation(tmp_path, model)
    described = shown(evaluation, capsys)
    assert (described["kind"], described["summary"]["f1"]) == ("evaluation", 0.8)
    assert described["pooled"]["precision"] is None
    for path, part in ((model, "base_channels"), (evaluation, "dice_mean")):
        inspect(path, as_json=False)
        assert part in capsys.readouterr().out


def test_tuning_and_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuning, experiment = tmp_path / "tuning", tmp_path / "experiment"
    claim = {"claim": "CDP lowers the error", "holds": True, "seeds_holding": 2, "seeds_judged": 3}
    for directory, kind, name, content in (
        (tuning, "tuning", "best.json", {"value": 0.75, "parameters": {"alpha": 0.25}}),
        (experiment, "experiment", "summary.json", {"patients": 9, "claims": [claim], "rows": []}),
    ):
        directory.mkdir()
        (directory / name).write_text(json.dumps(content))
        write_manifest(directory, kind, 1)
        assert shown(directory, capsys) == {"kind": kind, **content}
    inspect(tuning, as_json=False)
    assert "alpha" in capsys.readouterr().out
    inspect(experiment, as_json=False)
    assert "CDP lowers the error" in capsys.readouterr().out


def test_paths_that_are_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        inspect(tmp_path / "absent", as_json=True)
    with pytest.raises(ArtifactError, match="not a complete artifact"):
        inspect(tmp_path, as_json=True)
    write_manifest(tmp_path, "recipe", 1)
    with pytest.raises(ArtifactError, match="is a recipe, expected series-store"):
        inspect(tmp_path, as_json=True)
    write_manifest(tmp_path, "series-store", 99)
    with pytest.raises(ArtifactError, match="version 99"):
        inspect(tmp_path, as_json=True)


def test_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = {"average_precision": 0.75}
    compared = Comparison(
        task="lung-tumour", model_hash="a", slice_set_hash="b", patients=9, challenger=figures,
        champion={"average_precision": 0.5}, champion_version="3", metric="average_precision", difference=0.25,
        promote=True, reason="it finds more", figures={}, subgroups={}, rules={"policy": "newer"},
    )  # fmt: skip
    write_comparison(tmp_path, compared)
    assert shown(tmp_path, capsys) == {"kind": "comparison", **compared.model_dump()}
    inspect(tmp_path, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("│")[2].strip() for line in lines if "average_precision" in line] == [
        "0.75", "0.5", "average_precision",
    ]  # fmt: skip
