"""The steps by hand with every location on S3, against a SeaweedFS server: the same bytes as from and to folders."""

import json
from pathlib import Path
from typing import Any

import dicom_factory as factory
import numpy as np
import pytest
from s3_server import BUCKET, Proxy, client
from tiny_models import tiny_evaluation, tiny_model

from hounsfield import remote
from hounsfield.cli.inspect import inspect
from hounsfield.components.dicom_ingest import __main__ as ingest
from hounsfield.components.evaluate_pr_ap import __main__ as evaluate
from hounsfield.components.plan_experiment import __main__ as plan
from hounsfield.components.register_model import __main__ as register
from hounsfield.components.window_convert import __main__ as window
from hounsfield.step import command_line


@pytest.fixture(autouse=True)
def _environment(s3_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUNSFIELD_PSEUDONYM_KEY", "a key of the tests")


@pytest.fixture
def there(request: pytest.FixtureRequest) -> str:
    """A prefix of this test alone."""
    return f"s3://{BUCKET}/{request.node.name}"


def step(module: Any, **flags: str) -> None:
    argv = [text for name, value in flags.items() for text in (f"--{name.replace('_', '-')}", value)]
    command_line(module.Arguments, module.work, module.__name__, argv)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_cases(folder: Path) -> Path:
    """Four patients with a label each, and the cases file beside them."""
    lines = ["image,label,patient,split"]
    for number, split in enumerate(("train", "train", "val", "test")):
        hu = factory.phantom((6, 64, 64), seed=number)
        mask = np.zeros(hu.shape, bool)
        mask[2:4, 20:40, 20:40] = True
        slices = factory.write_series(folder / f"ct{number}", hu, patient=f"p{number}")
        factory.write_seg(folder / "labels" / f"{number}.dcm", slices, {"tumour": mask})
        lines.append(f"ct{number},./labels/{number}.dcm,p{number},{split}")
    (folder / "cases.csv").write_text("\n".join(lines))
    return folder / "cases.csv"


def test_chain_of_steps_gives_the_bytes_of_folders(there: str, s3_endpoint: str, tmp_path: Path) -> None:
    (tmp_path / "in" / "labels").mkdir(parents=True)
    here, s3 = str(tmp_path), client(s3_endpoint)
    cases = write_cases(tmp_path / "in")
    for name, content in contents(tmp_path / "in").items():
        s3.put_object(Bucket=BUCKET, Key=f"{there.rpartition('/')[2]}/in/{name}", Body=content)
    step(ingest, cases=str(cases), out=f"{here}/store")
    step(ingest, cases=f"{there}/in/cases.csv", out=f"{there}/store")
    model = tiny_model(tmp_path, size=64)
    remote.upload(model, f"{there}/model")
    for root in (here, there):
        step(window, store=f"{root}/store", out=f"{root}/slices", task="lung-tumour", size="64")
        chosen = str(model) if root == here else f"{there}/model"
        step(evaluate, slices=f"{root}/slices", model=chosen, out=f"{root}/evaluation")
        step(plan, experiment="l3-slice-study", out=f"{root}/plan")
    for name in ("store", "slices", "plan"):
        assert contents(remote.fetch(f"{there}/{name}")) == contents(tmp_path / name)
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in
               (tmp_path / "evaluation", remote.fetch(f"{there}/evaluation"))]  # fmt: skip
    assert metrics[0] == metrics[1]
    listed = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{there.rpartition('/')[2]}/store/")["Contents"]
    assert len(listed) == len(contents(tmp_path / "store"))
    assert not any(secret in item["Key"] for item in listed for secret in ("p0", "ct0", factory.PATIENT_ID))
    left = [path.name for path in (tmp_path / "tmp").iterdir()]
    assert [name for name in left if not name.startswith("hounsfield-fetched-")] == []


def test_inspection_leaves_the_pixels_where_they_are(
    there: str, s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in" / "labels").mkdir(parents=True)
    step(ingest, cases=str(write_cases(tmp_path / "in")), out=f"{tmp_path}/store")
    step(window, store=f"{tmp_path}/store", out=f"{tmp_path}/slices", task="lung-tumour", size="512")
    for name in ("store", "slices"):
        remote.upload(tmp_path / name, f"{there}/{name}")
        capsys.readouterr()
        inspect(tmp_path / name, as_json=True)
        expected = capsys.readouterr().out
        with Proxy(s3_endpoint) as proxy:
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
            inspect(f"{there}/{name}", as_json=True)
            assert proxy.received < sum(map(len, contents(tmp_path / name).values())) / 3
        assert capsys.readouterr().out == expected
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)


def test_registration_of_a_remote_model(there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(tmp_path)
    remote.upload(model, f"{there}/model")
    remote.upload(tiny_evaluation(tmp_path, model), f"{there}/evaluation")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    where = {"model": f"{there}/model", "evaluation": f"{there}/evaluation", "result": f"{there}/result.json"}
    step(register, **where, tracking_uri=uri)
    assert json.loads(remote.fetch(f"{there}/result.json").read_text())["model_uri"] == "models:/lung-tumour/1"


def test_wrong_locations_end_a_step_with_one_sentence(there: str, capsys: pytest.CaptureFixture[str]) -> None:
    for flags, sentence in (
        ({"store": f"{there}/store", "out": "s3://absent/slices"}, "there is no bucket absent"),
        ({"store": f"{there}/store", "out": f"{there}/slices"}, f"{there}/store does not exist"),
        ({"store": "gs://bucket/store", "out": f"{there}/slices"}, "AWS_ENDPOINT_URL=https://storage.googleapis.com"),
    ):
        with pytest.raises(SystemExit) as ended:
            step(window, **flags, task="lung-tumour")
        assert ended.value.code == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count("\n") == 1
