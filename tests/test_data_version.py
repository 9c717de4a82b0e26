"""The version of the data: the same as long as nothing changed, another one after any change."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from s3_server import ACCESS, BUCKET, SECRET, client

from hounsfield.components.data_version.component import data_version
from hounsfield.components.data_version.config import Config
from hounsfield.components.data_version.run import run, version_of
from hounsfield.errors import InputError


def write(path: Path, text: str, seconds: int = 1_000_000_000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (seconds, seconds))
    return path


def test_any_change_of_a_folder_is_seen(tmp_path: Path) -> None:
    write(tmp_path / "one" / "a", "1")
    seen = [version_of([tmp_path])]
    assert version_of([tmp_path]) == seen[0]
    for change in (
        lambda: write(tmp_path / "one" / "b", ""),
        lambda: write(tmp_path / "one" / "a", "12"),
        lambda: write(tmp_path / "one" / "a", "13", 1_000_000_001),
        lambda: (tmp_path / "one" / "a").rename(tmp_path / "one" / "c"),
        lambda: (tmp_path / "one" / "b").unlink(),
    ):
        change()
        seen.append(version_of([tmp_path]))
    assert len(set(seen)) == len(seen)
    assert version_of([tmp_path], given="again") not in seen
    assert all(len(version) == 16 for version in seen)


def test_files_that_a_cases_file_names_are_seen(tmp_path: Path) -> None:
    image, label = write(tmp_path / "images" / "1.nii", "image"), write(tmp_path / "1-label.nii", "label")
    cases = write(tmp_path / "cases.csv", "image,label\nimages/1.nii,1-label.nii\n")
    seen = {version_of([], cases)}
    assert version_of([], cases) in seen
    for file in (image, label, cases):
        write(file, file.read_text(), 1_000_000_007)
        seen.add(version_of([], cases))
    assert len(seen) == 4
    label.unlink()
    with pytest.raises(InputError, match="line 2"):
        version_of([], cases)


def test_objects_on_s3_are_seen(tmp_path: Path, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("AWS_ENDPOINT_URL", s3_endpoint),
        ("AWS_ACCESS_KEY_ID", ACCESS),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    s3 = client(s3_endpoint)
    prefix = f"s3://{BUCKET}/data-version"

    def put(name: str, text: str) -> None:
        s3.put_object(Bucket=BUCKET, Key=f"data-version/{name}", Body=text.encode())

    put("images/1.nii", "image")
    put("labels/1.nii", "label")
    put("cases.csv", "image,label\nimages/1.nii,labels/1.nii\n")
    of_prefix, of_cases = [version_of([f"{prefix}/labels"])], [version_of([], f"{prefix}/cases.csv")]
    put("images/1.nii", "image")
    assert version_of([f"{prefix}/labels"]) == of_prefix[0]
    assert version_of([], f"{prefix}/cases.csv") == of_cases[0]
    put("labels/1.nii", "lebal")
    of_prefix.append(version_of([f"{prefix}/labels"]))
    of_cases.append(version_of([], f"{prefix}/cases.csv"))
    put("labels/2.nii", "label")
    of_prefix.append(version_of([f"{prefix}/labels"]))
    assert version_of([], f"{prefix}/cases.csv") == of_cases[-1]
    assert len(set(of_prefix)) == 3
    assert len(set(of_cases)) == 2


def test_command_and_step_agree(tmp_path: Path) -> None:
    write(tmp_path / "with, comma" / "a", "1")
    folder = str(tmp_path / "with, comma")
    command = [sys.executable, "-m", "hounsfield.components.data_version"]
    done = subprocess.run([*command, "--data", folder], capture_output=True, text=True, check=True)
    assert done.stdout == f"data_version={run(Config(), [folder], '')}\n"
    failed = subprocess.run([*command, "--data", folder, "--cases", "c"], capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: give either --data")


def test_component_takes_folders_separated_by_commas(tmp_path: Path) -> None:
    folders = [str(write(tmp_path / name / "a", name).parent) for name in ("one", "two")]
    assert data_version.python_func(data=",".join(folders), given="x") == version_of(folders, given="x")
    with pytest.raises(SystemExit) as ended:
        data_version.python_func(data=f"{folders[0]}/absent")
    assert ended.value.code == 2


def test_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        version_of([tmp_path / "absent"])
