"""Site of a tumour, from CT volume to slice set and evaluation."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import SimpleITK as sitk
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score
from test_evaluate import SIZE, SPACING, predict_with, write_slice_set, write_tiny_model

from hounsfield.components.evaluate_pr_ap import run as step
from hounsfield.components.evaluate_pr_ap.config import Config
from hounsfield.components.window_convert.run import patient_site
from hounsfield.data.slice_set import SEGMENTATION, SliceIndex, SliceSet
from hounsfield.data.tumour_site import ATTACHED_SHARE, tumour_site, wall_contact
from hounsfield.phantom.cohort import make_patient

PIXEL, THICKNESS = 1.5, 4.0
SPACED = (THICKNESS, PIXEL, PIXEL)


class Thorax:
    """A body with two elliptic lungs, mediastinum between them, and a table under it, in 40 slices."""

    def __init__(self, left: bool = True) -> None:
        shape, axes = (40, 240, 260), ((-1, 1, 1), (1, -1, 1), (1, 1, -1))
        self.z, self.y, self.x = (np.arange(n, dtype=float).reshape(s) for n, s in zip(shape, axes, strict=True))
        self.z = (self.z - 20) * THICKNESS
        self.y = (self.y - 110) * PIXEL
        self.x = (self.x - 130) * PIXEL
        self.hu = np.full(shape, -1000.0)
        self.hu[np.broadcast_to((self.x / 175) ** 2 + (self.y / 125) ** 2 < 1, shape)] = 40
        for side in (-1, 1) if left else (-1,):
            self.hu[np.broadcast_to((self.x / 145) ** 2 + (self.y / 95) ** 2 < 1, shape) & (side * self.x > 30)] = -850
        table = np.abs(self.y - 140) < 12
        self.hu[np.broadcast_to(table & (np.abs(self.x) < 150), shape)] = -920
        self.hu[np.broadcast_to((np.abs(np.abs(self.y - 140) - 11) < 2) & (np.abs(self.x) < 150), shape)] = 120
        self.hu += np.random.default_rng(0).normal(0, 15, shape)
        self.mask = np.zeros(shape, np.uint8)

    def ball(self, x: float, y: float, z: float, radius: float, inside_lungs: bool = False) -> "Thorax":
        ball = (self.x - x) ** 2 + (self.y - y) ** 2 + (self.z - z) ** 2 < radius**2
        if inside_lungs:
            ball &= self.hu < -400
        self.hu[ball] = 50
        self.mask[ball] = 1
        return self

    @property
    def site(self) -> str:
        return tumour_site(self.hu.astype(np.int16), self.mask, SPACED)


@pytest.mark.parametrize("inside_lungs", [False, True])
def test_ball_on_the_wall_is_attached(inside_lungs):
    assert Thorax().ball(-132, 10, 0, 20, inside_lungs).site == "chest-wall"
    assert Thorax().ball(90, 68, 8, 18, inside_lungs).site == "chest-wall"


@pytest.mark.parametrize(
    "ball", [(-90, 0, 0, 25), (85, 20, 12, 8), (-38, -10, 0, 18), (45, 30, 0, 20), (-118, 10, 0, 18)]
)
def test_ball_in_the_lung_or_on_the_mediastinum_is_not(ball):
    assert Thorax().ball(*ball, inside_lungs=True).site == "intrapulmonary"


def test_mediastinum_is_no_wall_beside_a_single_lung():
    assert Thorax(left=False).ball(-38, -10, 0, 18, inside_lungs=True).site == "intrapulmonary"
    assert Thorax(left=False).ball(-135, 0, 0, 18).site == "chest-wall"


def test_dome_of_the_diaphragm_is_no_wall():
    thorax = Thorax()
    dome = ((thorax.x + 88) / 45) ** 2 + (thorax.y / 60) ** 2 + ((thorax.z + 40) / 30) ** 2 < 1
    thorax.hu[dome] = 60
    assert thorax.ball(-88, 0, -4, 14, inside_lungs=True).site == "intrapulmonary"


def test_any_attached_tumour_decides_and_specks_do_not():
    two = Thorax().ball(-90, 0, -40, 20).ball(136, 0, 30, 15)
    shares = wall_contact(two.hu.astype(np.int16), two.mask, SPACED)
    assert sorted(share >= ATTACHED_SHARE for share in shares) == [False, True]
    assert two.site == "chest-wall"
    speck = Thorax().ball(-90, 0, 0, 25)
    speck.mask[20, 110, 227] = 1
    assert speck.hu[20, 110, 228] > -400
    assert speck.site == "intrapulmonary"


def test_cropped_volume_and_flipped_axes():
    for thorax, site in (
        (Thorax().ball(-132, 10, 0, 20), "chest-wall"),
        (Thorax().ball(-90, 0, 0, 20), "intrapulmonary"),
    ):
        hu = thorax.hu.astype(np.int16)
        assert tumour_site(hu[:, 40:180, :150], thorax.mask[:, 40:180, :150], SPACED) == site
        assert tumour_site(hu[::-1, ::-1, ::-1], thorax.mask[::-1, ::-1, ::-1], SPACED) == site


def test_without_tumour_or_lung_the_site_is_unknown():
    thorax = Thorax()
    assert thorax.site == ""
    thorax.ball(-90, 0, 0, 20)
    thorax.hu[np.abs(thorax.hu + 850) < 100] = 40
    assert thorax.site == ""
    nothing = np.full((3, 20, 20), -1000, np.int16)
    assert tumour_site(nothing, np.ones(nothing.shape, np.uint8), SPACED) == ""


@pytest.mark.parametrize("number", [1, 3, 6, 13])
def test_phantoms(number):
    scan, anatomy = make_patient("chest", number, 7, size=128, slice_thickness=5)
    spacing = (scan.settings.spacing, scan.settings.pixel, scan.settings.pixel)
    attached = any(tumour.attached for tumour in anatomy.tumours)
    assert tumour_site(scan.hu, scan.mask, spacing) == ("chest-wall" if attached else "intrapulmonary")


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("folder", "image", "mask", "site"),
    [
        ("lung_nrrd_pyradiomics/data", "lung1_image.nrrd", "lung1_label.nrrd", "intrapulmonary"),
        ("lung_dicom_rtstruct_ibsi/nifti", "image/phantom.nii.gz", "mask/mask.nii.gz", "chest-wall"),
    ],
)
def test_real_tumours(real_data: Path, folder, image, mask, site):
    """A lesion amid the upper lobe, and a mass along the lateral ribs in a volume cropped to one side of the chest."""
    volume, label = (sitk.ReadImage(real_data / folder / name) for name in (image, mask))
    spacing = volume.GetSpacing()[::-1]
    assert tumour_site(sitk.GetArrayFromImage(volume).astype(np.int16), sitk.GetArrayFromImage(label), spacing) == site


def test_site_of_a_patient_with_several_series():
    assert patient_site({"", "intrapulmonary", "chest-wall"}) == "chest-wall"
    assert patient_site({"", "intrapulmonary"}) == "intrapulmonary"
    assert patient_site({""}) == patient_site(set()) == ""


PATIENTS = {"aa": "chest-wall", "bb": "intrapulmonary", "cc": "", "dd": "chest-wall", "ee": ""}


@pytest.fixture
def by_site(tmp_path: Path) -> Path:
    index, masks = [], []
    for place, (patient, site) in enumerate(PATIENTS.items()):
        for number in range(3):
            mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
            if patient != "cc":
                mask[5 : 9 + place, 5 : 8 + number] = 1
            masks.append(mask)
            index.append(
                SliceIndex(patient, patient, number, 5.0 * number, *SPACING, "test", place, int(mask.sum()), site)
            )
    return write_slice_set(tmp_path / "slices", SEGMENTATION, index, np.stack(masks), val=0.0)


def test_figures_of_the_subgroups(by_site, tmp_path, monkeypatch):
    truth = np.stack([SliceSet(by_site).mask(row) for row in range(15)])
    scores = (np.random.default_rng(1).normal(size=truth.shape) * 1.5 + 3 * truth - 2).astype(np.float32)
    predict_with(monkeypatch, scores)
    model = write_tiny_model(tmp_path / "model", SEGMENTATION)
    metrics = step.run(Config(shown_cases=1), by_site, model, tmp_path / "out")
    assert set(metrics["subgroups"]) == {"chest-wall", "intrapulmonary"}
    for site, patients in (("chest-wall", [0, 3]), ("intrapulmonary", [1])):
        rows = [3 * patient + number for patient in patients for number in range(3)]
        y, p = truth[rows].ravel(), scores[rows].ravel()
        found = metrics["subgroups"][site]
        assert found["patients"] == len(patients)
        assert found["f1"] == pytest.approx(f1_score(y, p >= 0))
        assert found["precision"] == pytest.approx(precision_score(y, p >= 0))
        assert found["recall"] == pytest.approx(recall_score(y, p >= 0))
        assert found["average_precision"] == pytest.approx(average_precision_score(y, p), abs=1e-5)
        dice = [f1_score(truth[3 * i : 3 * i + 3].ravel(), scores[3 * i : 3 * i + 3].ravel() >= 0) for i in patients]
        assert found["dice_mean"] == pytest.approx(np.mean(dice))
    assert metrics["subgroups"]["chest-wall"]["dice_sd"] is not None
    assert metrics["subgroups"]["intrapulmonary"]["dice_sd"] is None
    assert "1 patient whose tumour's site is unknown: in neither subgroup." in metrics["caveats"]
    table = pq.read_table(tmp_path / "out" / "patients.parquet").to_pylist()
    assert {row["patient"]: row["subgroup"] for row in table} == PATIENTS
    html = (tmp_path / "out" / "report.html").read_text()
    assert "<td>chest-wall</td><td>2</td>" in html
    assert f"<td>{metrics['subgroups']['intrapulmonary']['f1']:.3f}</td>" in html


def test_audit_of_an_evaluation(by_site, tmp_path, monkeypatch):
    predict_with(monkeypatch, np.random.default_rng(1).normal(size=(15, SIZE, SIZE)) - 1)
    metrics = step.run(Config(shown_cases=1), by_site, write_tiny_model(tmp_path / "m", SEGMENTATION), tmp_path / "out")
    pooled, audit = metrics["pooled"], metrics["audit"]
    assert audit["verdict"] == "consistent"
    assert audit["f1_recomputed"] == pytest.approx(pooled["f1"], abs=1e-9)
    assert audit["pooled_minus_mean"] == pytest.approx(pooled["f1"] - metrics["per_patient"]["dice_mean"])
    html = (tmp_path / "out" / "report.html").read_text()
    assert html.index("<h2>Audit</h2>") < html.index(audit["sentences"][1])


def test_fold_chooses_the_test_patients(by_site, tmp_path, monkeypatch):
    predict_with(monkeypatch, np.zeros((15, SIZE, SIZE)))
    model = write_tiny_model(tmp_path / "model", SEGMENTATION, {"parameters": {"fold": 3, "validation": "val"}})
    metrics = step.run(Config(shown_cases=1, fold=3), by_site, model, tmp_path / "out")
    assert (metrics["fold"], metrics["patients"]) == (3, 1)
    assert metrics["subgroups"]["chest-wall"]["patients"] == 1
    assert not any("Optimistic" in caveat for caveat in metrics["caveats"])


def test_other_fold_than_held_out_is_refused(by_site, tmp_path, monkeypatch):
    predict_with(monkeypatch, np.zeros((15, SIZE, SIZE)))
    model = write_tiny_model(tmp_path / "model", SEGMENTATION, {"parameters": {"fold": 3}})
    for fold in (-1, 2):
        with pytest.raises(step.ArtifactError, match=rf"trained with fold=3, the evaluation is of fold={fold}"):
            step.run(Config(shown_cases=1, fold=fold), by_site, model, tmp_path / "out")
    step.run(Config(shown_cases=1, fold=2, split="all"), by_site, model, tmp_path / "all")
    elsewhere = write_tiny_model(tmp_path / "other", SEGMENTATION, {"parameters": {"fold": 3}, "slice_set_hash": "f"})
    metrics = step.run(Config(shown_cases=1), by_site, elsewhere, tmp_path / "transfer")
    assert any("another slice set" in caveat for caveat in metrics["caveats"])


def test_model_chosen_by_its_test_patients_is_optimistic(by_site, tmp_path, monkeypatch):
    predict_with(monkeypatch, np.zeros((15, SIZE, SIZE)))
    model = write_tiny_model(tmp_path / "model", SEGMENTATION, {"parameters": {"validation": "test"}})
    metrics = step.run(Config(shown_cases=1), by_site, model, tmp_path / "out")
    assert any(caveat.startswith("Optimistic: the test patients chose") for caveat in metrics["caveats"])
