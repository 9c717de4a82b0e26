"""Segmentation: one pass over the pixels of every patient, pooled and per patient."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hounsfield.data.slice_set import SliceSet
from hounsfield.data.tumour_site import SITES
from hounsfield.evaluation.bootstrap import Counted, FineHistogram
from hounsfield.evaluation.prediction import Predict, log_odds, predict_rows, rows_by
from hounsfield.metrics.counts import Counts, Spread
from hounsfield.metrics.histogram import ScoreHistogram
from hounsfield.progress import Progress

MM3_PER_ML = 1000.0


@dataclass(frozen=True)
class PatientResult:
    """One patient. Dice is None when the truth is empty, however much is predicted; volumes in ml."""

    patient: str
    subgroup: str
    """Site of the tumour as the slice set knows it; empty without a tumour or where the site is unknown."""
    slices: int
    tumour_slices: int
    dice: float | None
    precision: float | None
    recall: float | None
    average_precision: float | None
    tp: int
    fp: int
    fn: int
    tn: int
    truth_ml: float
    predicted_ml: float
    shown_row: int
    """Row of the slice set with the largest tumour; of the largest prediction when there is no tumour."""

    @property
    def counts(self) -> Counts:
        return Counts(self.tp, self.fp, self.fn, self.tn)


@dataclass(frozen=True)
class Segmentation:
    """Pixels of all patients together, and each patient; `histograms` are those of the subgroups' patients.

    `scores` are those of the patients: (2, FINE_BINS) uint32, see `FineHistogram`.
    """

    pooled: Counts
    histogram: ScoreHistogram
    patients: list[PatientResult]
    histograms: dict[str, ScoreHistogram]
    scores: dict[str, Counted]

    def of_site(self, site: str) -> "Segmentation":
        """The patients of one subgroup, pooled among themselves."""
        patients = [patient for patient in self.patients if patient.subgroup == site]
        pooled = sum((patient.counts for patient in patients), Counts())
        scores = {patient.patient: self.scores[patient.patient] for patient in patients}
        return Segmentation(pooled, self.histograms[site], patients, {site: self.histograms[site]}, scores)

    @property
    def dice(self) -> Spread:
        """Over the patients with a tumour."""
        return Spread.of(patient.dice for patient in self.patients)

    @property
    def ranked(self) -> list[PatientResult]:
        """Patients with a tumour, lowest Dice first."""
        known = [(patient.dice, patient.patient, patient) for patient in self.patients if patient.dice is not None]
        return [patient for _, _, patient in sorted(known, key=lambda item: item[:2])]


def evaluate_segmentation(
    slices: SliceSet, splits: Sequence[str], predict: Predict, threshold: float, batch_size: int
) -> Segmentation:
    """Evaluate every patient of the splits; beyond a batch and four histograms, memory holds 0.5 MB a patient.

    Args:
        threshold: probability at and above which a pixel is tumour.

    Raises:
        InputError: the network gives NaN.
    """
    patients = rows_by(slices, "patient", splits)
    histogram = ScoreHistogram()
    histograms = {site: ScoreHistogram() for site in SITES}
    pooled = Counts()
    results: list[PatientResult] = []
    scores: dict[str, Counted] = {}
    with Progress("evaluate", sum(map(len, patients.values()))) as progress:
        for patient, rows in patients.items():
            own, fine = ScoreHistogram(), FineHistogram()
            result = _evaluate_patient(slices, patient, rows, predict, threshold, batch_size, (own, fine), progress)
            scores[patient] = fine.counts
            histogram.merge(own)
            if result.subgroup:
                histograms[result.subgroup].merge(own)
            pooled += result.counts
            results.append(result)
    return Segmentation(pooled, histogram, results, histograms, scores)


def _evaluate_patient(
    slices: SliceSet,
    patient: str,
    rows: Sequence[int],
    predict: Predict,
    threshold: float,
    batch_size: int,
    histograms: tuple[ScoreHistogram, FineHistogram],
    progress: Progress,
) -> PatientResult:
    cut = np.float32(log_odds(threshold))
    counts = Counts()
    truth_mm3 = predicted_mm3 = 0.0
    tumour_slices = 0
    shown, largest = rows[0], (-1, -1)
    for batch, scores in predict_rows(slices, rows, predict, batch_size):
        truth = slices.gather("mask", batch).view(np.bool_)
        predicted = scores >= cut
        for histogram in histograms:
            histogram.update(scores, truth)
        counts += Counts.of(predicted, truth)
        true_pixels, predicted_pixels = truth.sum(axis=(1, 2)), predicted.sum(axis=(1, 2))
        for row, true, positive in zip(batch, true_pixels.tolist(), predicted_pixels.tolist(), strict=True):
            item = slices.index[row]
            voxel = item.spacing_slice * item.spacing_row * item.spacing_column
            truth_mm3 += true * voxel
            predicted_mm3 += positive * voxel
            tumour_slices += true > 0
            if (true, positive) > largest:
                shown, largest = row, (true, positive)
        progress.advance(len(batch))
    precision_average = histograms[0].average_precision()
    return PatientResult(
        patient=patient,
        subgroup=slices.index[rows[0]].subgroup,
        slices=len(rows),
        tumour_slices=tumour_slices,
        dice=counts.dice,
        precision=counts.precision,
        recall=counts.recall,
        average_precision=None if precision_average is None else precision_average.value,
        tp=counts.tp,
        fp=counts.fp,
        fn=counts.fn,
        tn=counts.tn,
        truth_ml=truth_mm3 / MM3_PER_ML,
        predicted_ml=predicted_mm3 / MM3_PER_ML,
        shown_row=shown,
    )
