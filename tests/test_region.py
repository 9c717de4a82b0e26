"""Wrong body regions are told from right ones: on shapes like sections of a body, on real CT, and in a prediction."""

import json
from collections.abc import Callable
from pathlib import Path

import dicom_factory as factory
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
from predict_networks import SHAPE, predict, predictor, scan
from scipy.ndimage import gaussian_filter
from tiny_models import tiny_model
from typer.testing import CliRunner

from hounsfield.cli.main import app
from hounsfield.dicom.geometry import Orientation, plane_axes
from hounsfield.dicom.headers import SliceHeader, read_header
from hounsfield.dicom.pixels import read_slice
from hounsfield.dicom.reasons import UnusableError
from hounsfield.dicom.sources import walk
from hounsfield.predict.model import Predictor
from hounsfield.predict.region import WrongRegionError, check_region
from hounsfield.predict.run import predict_files

Volume = npt.NDArray[np.int16]
Section = npt.NDArray[np.float64]

PIXEL, SLICE = 2.0, 5.0
AIR, LUNG, FAT, SOFT, BONE = -1000, -850, -80, 40, 700
NO_LUNG, SKULL, LUNGS, LIMBS = "no aerated lung", "a skull", "lungs down to", "two limbs, or no body"


def ellipse(plane: Section, row: float, column: float, high: float, wide: float, hu: float) -> Section:
    """Fills an ellipse; middle from the image's own and diameters in mm."""
    rows, columns = ((np.arange(size) - (size - 1) / 2) * PIXEL for size in plane.shape)
    plane[np.hypot((rows[:, None] - row) / (high / 2), (columns[None, :] - column) / (wide / 2)) <= 1] = hu
    return plane


def trunk(wide: float = 340) -> Section:
    """Skin, fat, muscle, and a vertebra whose inside is less dense than its shell."""
    plane = ellipse(np.full((170, 220), float(AIR)), 0, 0, 230, wide, FAT)
    ellipse(plane, 0, 0, 200, wide - 30, SOFT)
    ellipse(ellipse(plane, 65, 0, 34, 46, BONE), 65, 0, 28, 40, 120)
    return ellipse(ellipse(plane, 92, 0, 30, 60, BONE), 92, 0, 16, 16, SOFT)


def abdomen() -> Section:
    """Stomach and colon full of gas, and a loop of stool."""
    plane = ellipse(trunk(), -40, 60, 60, 90, AIR)
    ellipse(plane, -20, -100, 50, 50, AIR)
    ellipse(plane, 30, 110, 40, 40, -200)
    return ellipse(plane, -60, -20, 30, 100, AIR)


def chest(left: float = LUNG, right: float = LUNG, size: float = 1) -> Section:
    plane = ellipse(trunk(), 0, -80, 150 * size, 100 * size, right)
    return ellipse(plane, 0, 80, 150 * size, 100 * size, left)


def bases(area: float) -> Section:
    """Lungs of `area` cm2 together."""
    wide = (area * 100 / 2 * 4 / np.pi) ** 0.5
    plane = ellipse(abdomen(), 30, -80, wide, wide, LUNG)
    return ellipse(plane, 30, 80, wide, wide, LUNG)


def pelvis() -> Section:
    plane = ellipse(trunk(360), 70, 0, 50, 90, BONE)
    for side in (-1, 1):
        ellipse(plane, 30, side * 110, 110, 18, BONE)
    return ellipse(plane, 10, 0, 40, 50, AIR)


def head() -> Section:
    """Skull base: frontal sinuses, mastoids like honeycomb and the ears' air within the ring."""
    plane = ellipse(np.full((170, 220), float(AIR)), 0, 0, 200, 160, SOFT)
    ellipse(ellipse(plane, 0, 0, 186, 146, 1000), 0, 0, 172, 132, 35)
    for side in (-1, 1):
        ellipse(plane, -70, side * 20, 22, 30, AIR)
        ellipse(plane, 20, side * 50, 30, 24, BONE)
        plane[90:100:2, 110 + side * 25 : 110 + side * 25 + 6 : 2] = AIR
    return plane


def thighs(apart: float) -> Section:
    """Two thighs of 160 mm, `apart` mm between their middles, fat where they touch."""
    plane = np.full((170, 220), float(AIR))
    for side in (-1, 1):
        ellipse(plane, 0, side * apart / 2, 160, 160, SOFT)
    for side in (-1, 1):
        ellipse(ellipse(plane, 0, side * apart / 2, 28, 28, 1200), 0, side * apart / 2, 14, 14, FAT)
    return plane


def volume(*parts: tuple[int, Section], noise: float = 15) -> Volume:
    """Sections from the feet up, each as often as it says, blurred like an image and with noise."""
    planes = [gaussian_filter(plane, 0.8) for count, plane in parts for _ in range(count)]
    shape = (len(planes), *planes[0].shape)
    return np.rint(np.array(planes) + np.random.default_rng(3).normal(0, noise, shape)).astype(np.int16)


def verdict(task: str, hu: Volume, spacing: tuple[float, float, float]) -> str:
    """The sentence of a refusal, empty without one."""
    try:
        check_region(task, hu, spacing)
    except WrongRegionError as error:
        return str(error)
    return ""


CASES: dict[str, tuple[Callable[[], Volume], str, str]] = {
    "chest": (lambda: volume((24, chest())), "", LUNGS),
    "one lung collapsed": (lambda: volume((24, chest(left=SOFT))), "", LUNGS),
    "emphysema": (lambda: volume((24, chest(-905, -905))), "", LUNGS),
    "child": (lambda: volume((10, chest(size=0.4))), "", ""),
    "low dose": (lambda: volume((24, chest()), noise=200), "", LUNGS),
    "field of view in a lung": (lambda: volume((12, chest()))[:, 60:110, 140:165], "", ""),
    "field of view on chest wall": (lambda: volume((12, chest()))[:, 60:150, 20:90], "", LUNGS),
    "small field of view on mediastinum": (lambda: volume((12, chest()))[:, 70:100, 85:115], "", ""),
    "chest with abdomen": (lambda: volume((12, abdomen()), (20, chest())), "", ""),
    "chest and neck": (lambda: volume((24, chest()), (6, trunk(160)), (6, head())), "", LUNGS),
    "head": (lambda: volume((30, head())), NO_LUNG, SKULL),
    "head and neck": (lambda: volume((10, trunk(160)), (20, head())), NO_LUNG, SKULL),
    "thighs": (lambda: volume((20, thighs(190))), NO_LUNG, LIMBS),
    "thighs that touch": (lambda: volume((20, thighs(150))), NO_LUNG, LIMBS),
    "pelvis": (lambda: volume((20, pelvis())), NO_LUNG, ""),
    "abdomen": (lambda: volume((30, abdomen())), NO_LUNG, ""),
    "noisy abdomen": (lambda: volume((30, abdomen()), noise=150), NO_LUNG, ""),
    "abdomen, a glimpse of lung": (lambda: volume((30, abdomen()), (1, bases(40))), NO_LUNG, ""),
    "abdomen, thin lung": (lambda: volume((30, abdomen()), (4, bases(6))), NO_LUNG, ""),
    "abdomen, lung bases": (lambda: volume((30, abdomen()), (4, bases(30))), "", ""),
    "spine": (lambda: volume((20, abdomen()))[:, 92:150, 80:140], NO_LUNG, ""),
    "whole body": (
        lambda: volume((20, thighs(190)), (10, pelvis()), (30, abdomen()), (30, chest()), (20, head())),
        "",
        "",
    ),
    "air": (lambda: volume((20, np.full((170, 220), float(AIR)))), NO_LUNG, LIMBS),
    "water": (lambda: volume((20, ellipse(np.full((170, 220), float(AIR)), 0, 0, 300, 300, 0))), NO_LUNG, LIMBS),
}


@pytest.mark.parametrize("task", ["lung-tumour", "l3-slice"])
@pytest.mark.parametrize("case", CASES)
def test_shapes_of_a_body(case: str, task: str) -> None:
    made, lung, l3 = CASES[case]
    said, expected = verdict(task, made(), (SLICE, PIXEL, PIXEL)), lung if task == "lung-tumour" else l3
    assert said.startswith(expected) if expected else said == ""


@pytest.mark.parametrize("spacing", [0.5, 1.25, 5.0, 10.0])
def test_thin_slabs_and_any_distance_of_slices(spacing: float) -> None:
    assert verdict("lung-tumour", volume((12, chest())), (spacing, PIXEL, PIXEL)) == ""
    assert verdict("lung-tumour", volume((12, abdomen())), (spacing, PIXEL, PIXEL)).startswith(NO_LUNG)
    assert verdict("l3-slice", volume((12, chest())), (spacing, PIXEL, PIXEL)).startswith(LUNGS)
    assert verdict("l3-slice", volume((12, abdomen())), (spacing, PIXEL, PIXEL)) == ""


@pytest.mark.parametrize(("below", "expected"), [(5, LUNGS), (7, "")])
def test_l3_may_lie_from_30_mm_below_the_lungs(below: int, expected: str) -> None:
    said = verdict("l3-slice", volume((below, abdomen()), (20, chest())), (SLICE, PIXEL, PIXEL))
    assert said.startswith(expected) if expected else said == ""


def test_the_reason_says_what_was_sought_and_seen() -> None:
    assert verdict("lung-tumour", volume((30, abdomen()), (1, bases(40))), (SLICE, PIXEL, PIXEL)).startswith(
        "no aerated lung of at least 10 cm2 over 10 mm (largest 25 cm2, 5 mm reach 10 cm2): "
    )
    assert verdict("l3-slice", volume((2, abdomen()), (20, chest())), (SLICE, PIXEL, PIXEL)) == (
        "lungs down to 10 mm above the lowest slice, and L3 lies further down: "
        "expected CT of the abdomen (--any-region predicts it all the same)"
    )


def oriented(path: Path) -> tuple[Volume, tuple[float, float, float]]:
    image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
    x, y, z = image.GetSpacing()
    return sitk.GetArrayFromImage(image).astype(np.int16), (z, y, x)


def slices(folder: Path) -> tuple[Volume, tuple[float, float, float]]:
    """The CT slices below `folder` as they lie, tilted or too few for a series as they may be."""
    headers = []
    for file in walk(folder):
        try:
            header = read_header(file)
        except UnusableError:
            continue
        if isinstance(header, SliceHeader):
            headers.append(header)
    axes = plane_axes(headers[0].orientation)
    headers.sort(key=lambda item: float(np.dot(item.position, axes[0])))
    hu = np.empty((len(headers), headers[0].rows, headers[0].columns), np.int16)
    for header, plane in zip(headers, hu, strict=True):
        read_slice(header, plane)
    along = np.diff([float(np.dot(item.position, axes[0])) for item in headers])
    step = abs(float(np.median(along))) if len(along) else SLICE
    return Orientation.towards(axes).array(hu), (step, *headers[0].pixel_spacing)


L3, LIDC = "l3_totalsegmentator/tests/reference_files", "lung_dicom_LIDC_concept-to-clinic"
REAL = {
    "lung_nrrd_pyradiomics/data/lung1_image.nrrd": ("", LUNGS),
    f"{LIDC}/LIDC-IDRI-0001": ("", LUNGS),
    f"{LIDC}/LIDC-IDRI-0002": ("", LUNGS),
    "lung_dicom_rtstruct_ibsi/dicom/image": ("", ""),
    "chest_ct_no_lesion_totalsegmentator/tests/reference_files/aorta_report/example_ct.nii.gz": ("", ""),
    f"{L3}/example_ct.nii.gz": ("", ""),
    f"{L3}/example_ct_sm.nii.gz": ("", ""),
    f"{L3}/example_ct_dicom": (NO_LUNG, ""),
    "abdomen_dicom_crlm_1004": ("", ""),
    "l3_verse/sub-verse005_ct.nii.gz": (NO_LUNG, ""),
    "l3_verse/sub-verse006_ct.nii.gz": (NO_LUNG, ""),
    "l3_tptbox_crop/TPTBox/tests/sample_ct/sub-ct_label-22_ct.nii.gz": (NO_LUNG, ""),
    "gantry_tilt_philips": (NO_LUNG, LIMBS),
    "mixed_modality_petct_delia_R01-005": (NO_LUNG, LIMBS),
}
HEADS = "odd_dicom_pydicom/src/pydicom/data/test_files"


@pytest.mark.real_data
@pytest.mark.parametrize("task", ["lung-tumour", "l3-slice"])
@pytest.mark.parametrize("name", REAL)
def test_real_ct(name: str, task: str, real_data: Path) -> None:
    path = real_data / name
    hu, spacing = slices(path) if path.is_dir() else oriented(path)
    said, expected = verdict(task, hu, spacing), REAL[name][task == "l3-slice"]
    assert said.startswith(expected) if expected else said == ""


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm"])
def test_real_slices_of_a_head_repeated(name: str, real_data: Path) -> None:
    """Of the vault, and of the skull base with sinuses and mastoids."""
    header = read_header(next(file for file in walk(real_data / HEADS) if file.path.name == name))
    assert isinstance(header, SliceHeader)
    plane = np.empty((header.rows, header.columns), np.int16)
    read_slice(header, plane)
    hu, spacing = np.repeat(plane[None], 20, axis=0), (SLICE, *header.pixel_spacing)
    assert verdict("lung-tumour", hu, spacing).startswith(NO_LUNG)
    assert verdict("l3-slice", hu, spacing).startswith(SKULL)


@pytest.fixture
def two_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a series inside a lung and one of muscle."""
    monkeypatch.setenv("HOUNSFIELD_PSEUDONYM_KEY", "a key of the tests")
    factory.write_series(tmp_path / "in" / "lung", scan())
    factory.write_series(tmp_path / "in" / "muscle", np.full(SHAPE, SOFT, np.int16))
    return tmp_path


def test_a_series_of_the_wrong_region_is_refused_before_the_network_and_the_other_predicted(
    two_series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    scores = Predictor.scores

    def counted(self: Predictor, hu: Volume, *rest: object) -> object:
        seen.append(int(hu.max()))
        return scores(self, hu, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Predictor, "scores", counted)
    outcomes = predict(two_series / "in", two_series / "out")
    assert sorted((item.status, item.reason) for item in outcomes) == [("predicted", ""), ("refused", "wrong-region")]
    assert seen == [int(scan().max())]
    good, bad = sorted(outcomes, key=lambda item: item.status)
    assert bad.sentence.startswith("no aerated lung of at least 0.512 cm2 over 10 mm (largest 0 cm2")
    assert [path.name for path in (two_series / "out").iterdir() if path.is_dir()] == [good.series]
    assert json.loads((two_series / "out" / good.series / "result.json").read_text())["region"] == "checked"
    table = json.loads((two_series / "out" / "results.json").read_text())
    assert {item["reason"]: item["sentence"] for item in table["series"]}["wrong-region"] == bad.sentence


def test_any_region_predicts_all_and_says_so_and_is_not_taken_for_a_checked_result(two_series: Path) -> None:
    def states(any_region: bool) -> list[str]:
        made = predict_files(
            "lung-tumour", walk(two_series / "in"), predictor(), two_series / "out", 10, 5, any_region=any_region
        )
        return sorted(item.status for item in made)

    def regions() -> list[str]:
        return sorted(json.loads(path.read_text())["region"] for path in two_series.glob("out/*/result.json"))

    assert states(True) == ["predicted", "predicted"]
    assert regions() == ["not checked", "not checked"]
    assert states(True) == ["done", "done"]
    assert states(False) == ["predicted", "refused"]
    assert regions() == ["checked", "not checked"]
    assert states(False) == ["done", "refused"]


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUNSFIELD_PSEUDONYM_KEY", "a key of the tests")
    factory.write_series(tmp_path / "in", volume((12, chest())), spacing=(SLICE, PIXEL, PIXEL))
    call = ["predict", "l3-slice", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    call += ["--model", str(tiny_model(tmp_path, "l3-slice"))]
    refused = CliRunner().invoke(app, call)
    assert "no series was predicted: wrong-region (1 series: lungs down to 0 mm" in str(refused.exception)
    done = CliRunner().invoke(app, [*call, "--any-region"])
    assert (done.exit_code, done.exception) == (0, None)
    (result,) = (tmp_path / "out").glob("*/result.json")
    assert json.loads(result.read_text())["region"] == "not checked"
