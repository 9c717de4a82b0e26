"""The benchmark at the papers' size, tried at a small one on the CPU."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).parents[1]
SMALL = ["--device", "cpu", "--size", "32", "--l3-size", "32", "--batch", "2", "--l3-batch", "2"]


@pytest.fixture(scope="module")
def papers_size() -> ModuleType:
    spec = importlib.util.spec_from_file_location("papers_size", ROOT / "benchmarks" / "papers_size.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["papers_size"] = module
    spec.loader.exec_module(module)
    return module


def test_every_network_is_measured_on_the_cpu(
    papers_size: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    allowed = torch.backends.cudnn.allow_tf32
    papers_size.main([*SMALL, "--base-channels", "8", "--repeats", "1", "--compile", "none", "--out", str(tmp_path)])
    result = json.loads((tmp_path / "rates.json").read_text())
    assert result["torch"] == torch.__version__
    assert result["device"].startswith("CPU")
    assert set(result["peak_flops"]) == {"fp32", "bf16"}
    rows = result["rows"]
    assert len(rows) == 4 * 2 * 3 * 2
    for row in rows:
        if row["precision"] == "tf32":
            assert row["images_per_second"] is None
            assert "skipped on the CPU" in row["note"]
        else:
            assert row["images_per_second"] == pytest.approx(1000 * row["batch"] / row["milliseconds"])
            assert row["share_of_peak"] == pytest.approx(row["tflops"] * 1e12 / result["peak_flops"][row["precision"]])
    printed = capsys.readouterr().out
    assert printed.count("| SegNet |") == 12
    assert torch.backends.cudnn.allow_tf32 == allowed


def test_flops_are_those_of_the_convolutions(papers_size: ModuleType) -> None:
    size, width = 32, 8
    expected, side, channels = 0, size, 1
    for level in range(5):
        out = width * 2**level
        expected += 2 * 9 * side**2 * (channels * out + out * out)
        channels, side = out, side // 2
    for level in reversed(range(4)):
        out, side = width * 2**level, size // 2**level
        expected += 2 * (side // 2) ** 2 * 2 * out * out * 4 + 2 * 9 * side**2 * (2 * out * out + out * out)
    expected += 2 * size**2 * width * 2
    found = papers_size.flops("unet", width, size)
    assert found["inference"] == expected
    first = 2 * 9 * size**2 * width
    assert found["training"] == 3 * expected - first


def test_a_batch_that_does_not_fit_is_halved(papers_size: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    real = papers_size.work_of

    def small_memory(row: object, *rest: object) -> object:
        if row.batch > 3:  # type: ignore[attr-defined]
            raise torch.OutOfMemoryError
        return real(row, *rest)

    monkeypatch.setattr(papers_size, "work_of", small_memory)
    arguments = papers_size.parse([*SMALL, "--base-channels", "8", "--repeats", "1"])
    row = papers_size.Row("unet", "inference", "fp32", "contiguous", False, 32, 12)
    measured = papers_size.measure(row, arguments, torch.device("cpu"), {"fp32": 1e9})
    assert measured.batch == 3
    assert measured.note == "batch 12 does not fit into memory: halved to 3"
    assert measured.images_per_second > 0


def test_compiled_rows_are_chosen_by_layout(papers_size: ModuleType) -> None:
    counts = {}
    for choice in ("none", "channels-last", "all"):
        rows = list(papers_size.combinations(papers_size.parse(["--compile", choice])))
        counts[choice] = sum(row.compiled for row in rows)
        assert {(row.size, row.batch) for row in rows if row.network == "unet"} == {(512, 30)}
        assert {(row.size, row.batch) for row in rows if row.network == "resnet50"} == {(224, 32)}
    assert counts == {"none": 0, "channels-last": 24, "all": 48}


def test_without_a_gpu_nothing_is_measured(
    papers_size: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    papers_size.main(["--out", str(tmp_path / "none")])
    assert "no CUDA GPU here" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_plateau_is_told_from_a_training_that_still_gains(papers_size: ModuleType) -> None:
    assert papers_size.plateau([0.1, 0.5, 0.8, 0.802, 0.801, 0.803, 0.8, 0.802]).startswith("plateau from epoch 3")
    assert papers_size.plateau([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]).startswith("no plateau yet")
    assert papers_size.plateau([None, None, None, None]).startswith("plateau unknown")


@pytest.mark.slow
def test_a_small_training_prints_its_table_row(
    papers_size: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOUNSFIELD_PSEUDONYM_KEY", papers_size.PSEUDONYM_KEY)
    command = [*SMALL, "--train", "--size", "64", "--patients", "10", "--epochs", "2", "--base-channels", "4"]
    papers_size.main([*command, "--out", str(tmp_path), "--set", "precision=fp32", "--set", "negatives_per_positive=1"])
    result = json.loads((tmp_path / "training.json").read_text())
    assert len(result["history"]) == 2
    assert result["config"]["loss"] == "cl"
    assert (result["config"]["alpha"], result["config"]["gamma"], result["config"]["beta"]) == (0.25, 4.0, 0.7)
    assert result["row"]["patients"] >= 1
    printed = capsys.readouterr().out
    assert f"| U-Net+CL, phantoms 64x64 | {result['row']['patients']} | 0.25 | 4 | 0.7 |" in printed
    assert "| U-Net+CL, the paper | | 0.25 | 4 | 0.7 | 0.8877 | 0.8731 | 0.9030 | 0.827 |" in printed
    assert "plateau" in printed
