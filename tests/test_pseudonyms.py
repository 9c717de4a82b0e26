"""Nothing that leaves ingest names a patient; pseudonyms follow their key."""

import re
from pathlib import Path

import dicom_factory as factory
import pydicom
import pytest

from hounsfield.components.dicom_ingest.run import Config, run
from hounsfield.data.series_store import SeriesStore
from hounsfield.errors import InputError


@pytest.fixture(autouse=True)
def _pseudonym_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUNSFIELD_PSEUDONYM_KEY", "a key of the tests")


def ingest(data: Path, out: Path) -> SeriesStore:
    run(Config(), [str(data)], None, out)
    return SeriesStore(out)


def shift(dataset: pydicom.FileDataset, k: int) -> None:
    if k == 3:
        dataset.ImagePositionPatient = [-40, -30, dataset.ImagePositionPatient[2] + 0.6]


def test_nothing_identifies_the_patient(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "Roentgen_Wilhelmina_19450327"
    hu = factory.phantom()
    slices = factory.write_series(source / "MRN-7731-SECRET", hu)
    factory.write_seg(source / "MRN-7731-SECRET" / "seg.dcm", slices, {"tumour": hu > 0})
    bad = factory.write_series(source / "bad", hu, change=shift)
    (source / "bad" / "broken").write_bytes((source / "bad" / "003").read_bytes()[:400])
    (source / "MRN-7731-SECRET.txt").write_text("x")
    ingest(source, tmp_path / "out")
    texts = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    texts += [str(path).encode() for path in (tmp_path / "out").rglob("*")]
    with pytest.raises(InputError) as failure:
        ingest(source / "bad", tmp_path / "out2")
    said = capfd.readouterr()
    texts += [said.out.encode(), said.err.encode(), str(failure.value).encode()]
    store = SeriesStore(tmp_path / "out")
    texts += [repr((store.series, store.rejected, store.slices())).encode()]
    uids = [str(dataset[name].value) for dataset in slices + bad for name in ("SOPInstanceUID", "SeriesInstanceUID")]
    secrets = [factory.PATIENT_ID, "Roentgen", "Wilhelmina", factory.BIRTH_DATE, factory.ISSUER, "20200101", *uids]
    for secret in secrets:
        assert not any(secret.encode() in text for text in texts if b"pytest-" not in text), secret


def test_pseudonyms_depend_on_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    factory.write_series(tmp_path / "in", factory.phantom())
    first = ingest(tmp_path / "in", tmp_path / "a").series[0]
    monkeypatch.setenv("HOUNSFIELD_PSEUDONYM_KEY", "another")
    second = ingest(tmp_path / "in", tmp_path / "b").series[0]
    assert first.patient != second.patient
    assert first.key != second.key
    assert first.pixel_sha256 == second.pixel_sha256
    assert re.fullmatch("[0-9a-f]{16}", first.patient)


def test_key_file_is_made_once_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hounsfield.dicom.pseudonyms import load_pseudonyms

    monkeypatch.delenv("HOUNSFIELD_PSEUDONYM_KEY")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    first = load_pseudonyms().of("patient", "1")
    path = tmp_path / "config" / "hounsfield" / "pseudonym.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [item.name for item in path.parent.iterdir()] == ["pseudonym.key"]
    assert load_pseudonyms().of("patient", "1") == first
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match="HOUNSFIELD_PSEUDONYM_KEY"):
        load_pseudonyms()
