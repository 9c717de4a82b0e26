"""Stores and slice sets on disk: complete or absent, read back as written."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stores import make_store

from hounsfield.data.arrow import ArrowSlices, SliceWriter
from hounsfield.data.series_store import SeriesStore
from hounsfield.errors import ArtifactError, InputError
from hounsfield.storage import atomic_directory, read_manifest, write_json, write_manifest


def test_slices_of_several_blocks_are_read_without_a_copy(tmp_path: Path) -> None:
    blocks = [np.arange(n * 12, dtype=np.int16).reshape(n, 3, 4) + 100 * n for n in (2, 1, 3)]
    with SliceWriter(tmp_path / "a.arrow", {"hu": (np.dtype(np.int16), (3, 4))}) as writer:
        for block in blocks:
            writer.append({"hu": block})
    slices = ArrowSlices(tmp_path / "a.arrow", (3, 4))
    expected = np.concatenate(blocks)
    assert len(slices) == 6
    for i in range(6):
        view = slices.slice("hu", i)
        assert not view.flags.owndata
        np.testing.assert_array_equal(view, expected[i])
    np.testing.assert_array_equal(slices.column("hu"), expected)


def test_truncated_arrow_file_is_an_error(tmp_path: Path) -> None:
    with SliceWriter(tmp_path / "a.arrow", {"hu": (np.dtype(np.int16), (3, 4))}) as writer:
        writer.append({"hu": np.zeros((5, 3, 4), np.int16)})
    data = (tmp_path / "a.arrow").read_bytes()
    (tmp_path / "a.arrow").write_bytes(data[: len(data) // 2])
    with pytest.raises(ArtifactError, match="cannot be read"):
        ArrowSlices(tmp_path / "a.arrow", (3, 4))


def test_store_reads_back_and_same_input_gives_same_bytes(tmp_path: Path) -> None:
    first = make_store(tmp_path / "a", ["p1", "p2"])
    second = make_store(tmp_path / "b", ["p2", "p1"])
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    store = SeriesStore(first)
    hu, mask = store.volume(store.series[0])
    assert hu.dtype == np.int16
    assert hu.shape == store.series[0].shape
    assert mask is not None
    assert int(mask.sum()) == store.series[0].label_voxels == 2 * 6 * 7


def test_dataset_hash_changes_with_a_label_only(tmp_path: Path) -> None:
    base = SeriesStore(make_store(tmp_path / "a", ["p1"]))
    moved = SeriesStore(make_store(tmp_path / "b", ["p1"], label_slices=(3, 6)))
    assert base.series[0].pixel_sha256 == moved.series[0].pixel_sha256
    assert base.dataset_hash != moved.dataset_hash


def test_failed_block_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail_half_way() -> None:
        with atomic_directory(tmp_path / "out") as partial:
            (partial / "half").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert list(tmp_path.iterdir()) == []


def test_foreign_directory_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not an artifact"), atomic_directory(tmp_path):
        pass
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_artifact_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with atomic_directory(tmp_path / "out") as partial:
            (partial / text).write_text(text)
            write_manifest(partial, "model", 1)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.json", "new"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_output(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot write output"), atomic_directory(tmp_path / "out"):
        pass


def test_output_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write output"), atomic_directory(tmp_path / "file" / "out"):
        pass


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "no manifest.json"),
        ("{", "is not JSON"),
        ('{"kind": "model", "version": 1}', "is a model, expected a series-store"),
        ('{"kind": "series-store", "version": 99}', "version 99"),
    ],
)
def test_wrong_manifests_are_named(tmp_path: Path, content: str | None, sentence: str) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ArtifactError, match=sentence):
        read_manifest(tmp_path, "series-store", 1)


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"ap": float("nan")})


def test_what_a_killed_process_left_behind_blocks_nothing(tmp_path: Path) -> None:
    """In a container every process may have the same number."""
    target = tmp_path / "out"
    script = (
        "import os, pathlib, signal, sys\n"
        "from hounsfield.storage import atomic_directory\n"
        "os.getpid = lambda: 1\n"
        "with atomic_directory(pathlib.Path(sys.argv[1])) as folder:\n"
        "    (folder / 'manifest.json').write_text('{}')\n"
        "    if sys.argv[2:]: os.kill(0, signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(target), "kill"], start_new_session=True)
    assert killed.returncode == -signal.SIGKILL
    assert not target.exists()
    assert subprocess.run([sys.executable, "-c", script, str(target)]).returncode == 0
    assert target.is_dir()
