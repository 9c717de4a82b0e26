"""The champion gate: its rules one by one, what it compares, and the page."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_models import tiny_model

from hounsfield.components.compare_models.config import Config
from hounsfield.components.compare_models.measures import by_patient, detection_trial, groups_of, maker
from hounsfield.components.compare_models.run import IncomparableError, check_images
from hounsfield.data.model_store import read_card
from hounsfield.data.series_store import SeriesRow, SeriesStoreWriter
from hounsfield.data.slice_set import SEGMENTATION, SliceSet
from hounsfield.errors import ArtifactError
from hounsfield.evaluation.bootstrap import (
    Floats,
    MeanFigure,
    paired_difference,
)
from hounsfield.evaluation.gate import Decision, Measure, Policy, Rules, decide
from hounsfield.evaluation.gate_page import gate_page
from hounsfield.windowing import window_for

RULES = Rules("newer", min_patients=10, subgroup_margin=1.0, min_subgroup_patients=5, resamples=2000, seed=0)
PATIENTS = 24


def verdict(
    gain: float,
    noise: float = 0.01,
    second: float = 0.0,
    parameters: tuple[int, int] = (100, 100),
    patients: int = PATIENTS,
    groups: Sequence[dict[str, str]] | None = None,
    per_patient: Floats | None = None,
    lower_is_better: bool = False,
    **rules: object,
) -> Decision:
    """Of a challenger that is `gain` above the champion in the headline figure and `second` in the other."""
    generator = np.random.default_rng(1)
    old = generator.uniform(0.4, 0.8, patients)
    change = generator.normal(0, noise, patients)
    change = change - change.mean() + gain
    new = old + (change if per_patient is None else per_patient)
    ones = np.ones(patients)
    measures = [
        Measure("dice", "mean Dice", MeanFigure(np.stack([new, old]), ones), 0.02, not lower_is_better),
        Measure("rate", "detection rate", MeanFigure(np.stack([old + second, old]), ones), 0.02, True),
    ]
    own = replace(RULES, **rules)  # type: ignore[arg-type]
    return decide(measures, [True] * patients, groups or [{}] * patients, parameters, own)


@pytest.mark.parametrize("policy", ["better", "simpler", "newer"])
def test_better_becomes_champion_under_every_policy(policy: Policy) -> None:
    found = verdict(0.05, policy=policy)
    assert found.promote
    assert found.reason.startswith("It is better: the mean Dice differs by +0.0500 (95 % interval +0.0")


@pytest.mark.parametrize(
    ("policy", "parameters", "promote", "sentence"),
    [
        ("better", (50, 100), False, "not worse within the margin of 0.0200, but not better"),
        ("simpler", (50, 100), True, "and simpler, with 50 parameters instead of 100"),
        ("simpler", (100, 100), False, "but not simpler, which the policy asks for: it has 100 parameters"),
        ("newer", (200, 100), True, "and newer"),
    ],
)
def test_not_worse_is_for_the_policy_to_decide(
    policy: Policy, parameters: tuple[int, int], promote: bool, sentence: str
) -> None:
    found = verdict(-0.005, policy=policy, parameters=parameters)
    assert (found.promote, sentence in found.reason) == (promote, True), found.reason


def test_worse_and_uncertain_are_refused() -> None:
    worse = verdict(-0.05)
    assert not worse.promote
    assert worse.reason.startswith("It is worse:")
    uncertain = verdict(0.0, noise=0.2)
    assert not uncertain.promote
    assert uncertain.reason.startswith("It is not shown to be as good:")
    assert "a loss of more than the margin of 0.0200 is not excluded" in uncertain.reason


def test_lower_is_better_turns_the_sign() -> None:
    assert verdict(-0.05, lower_is_better=True, policy="better").promote
    assert verdict(0.05, lower_is_better=True).reason.startswith("It is worse")


def test_second_figure_forbids() -> None:
    found = verdict(0.05, second=-0.03)
    assert not found.promote
    assert found.reasons[0] == "Detection rate falls behind by more than the margin of 0.0200: -0.0300."
    assert found.reasons[1].startswith("Without that it would have become champion: it is better")
    assert verdict(0.05, second=-0.01).promote


def test_too_few_patients_carry_no_verdict() -> None:
    found = verdict(0.05, patients=9)
    assert not found.promote
    assert found.reasons[0].startswith("Too few patients carry the verdict: 9 of the 9 test patients")
    assert verdict(0.05, patients=10).promote


@pytest.mark.parametrize(("kind", "name"), [("tumour site", "chest-wall"), ("manufacturer", "ACME")])
def test_subgroup_that_gets_worse_forbids(kind: str, name: str) -> None:
    change = np.full(PATIENTS, 0.1)
    change[:6] = -0.03
    groups = [{kind: name} if place < 6 else {kind: "other"} for place in range(PATIENTS)]
    found = verdict(0.0, per_patient=change, groups=groups)
    assert not found.promote
    assert found.reasons[0] == (
        f"Among the 6 patients of {kind} {name} the mean Dice falls behind by more than the margin of 0.0200: -0.0300."
    )
    assert [(group.name, group.patients) for group in found.groups] == sorted([(name, 6), ("other", 18)])
    small = verdict(0.0, per_patient=change, groups=groups, min_subgroup_patients=7)
    assert small.promote
    assert "none of the 1 subgroups" in small.reasons[1]
    assert verdict(0.05).reasons[1].endswith("no subgroup has enough patients to be judged.")
    assert [group.judged for group in small.groups if group.name == name] == [False]


def rate_verdict(missed: int, groups: Sequence[dict[str, str]] | None = None) -> Decision:
    """Of a challenger that misses `missed` patients from the first on, of `PATIENTS` that the champion detects all."""
    detected = np.ones((2, PATIENTS))
    detected[0, :missed] = 0
    ones, old = np.ones(PATIENTS), np.full(PATIENTS, 5.0)
    measures = [
        Measure("error", "mean slice error", MeanFigure(np.stack([old - 1, old]), ones), 1.0, False, "mm", 2),
        Measure("rate", "detection rate", MeanFigure(detected, ones), 0.02, True, rate=True),
    ]
    rules = replace(RULES, subgroup_margin=2.0)
    return decide(measures, [True] * PATIENTS, groups or [{}] * PATIENTS, (1, 1), rules)


def test_one_case_of_a_rate_does_not_forbid() -> None:
    one = rate_verdict(1)
    assert one.promote
    weight = "the weight of 1 of 24 cases (0.0417, one case being more than the margin of 0.0200)"
    assert one.reasons[-1] == f"The detection rate loses no more than {weight}: -0.0417."
    two = rate_verdict(2)
    assert not two.promote
    assert two.reasons[0] == f"Detection rate falls behind by more than {weight}: -0.0833."
    assert len(rate_verdict(0).reasons) == 2
    large = Measure("rate", "rate", MeanFigure(np.ones((2, 100)), np.ones(100)), 0.02, True, rate=True)
    assert large.limit(large.figure).loss == 0.02
    assert large.limit(large.figure, 2.0).text == "2 margins of 0.0200"


@pytest.mark.parametrize(("size", "missed", "worse"), [(14, 2, False), (14, 3, True), (17, 2, False), (17, 3, True)])
def test_subgroup_may_lose_the_weight_of_so_many_cases(size: int, missed: int, worse: bool) -> None:
    """The loss of two cases and the limit are the same number up to rounding, which for 14 and 17 would forbid."""
    groups = [{"manufacturer": "ACME" if place < size else ""} for place in range(PATIENTS)]
    found = rate_verdict(missed, groups=groups)
    assert [item.name for item in found.groups[0].worse(found.measures)] == (["rate"] if worse else [])
    said = f"Among the {size} patients of manufacturer ACME the detection rate falls behind by more than the weight of "
    assert any(said + f"2 of {size} cases" in sentence for sentence in found.reasons) == worse
    assert found.unknown == {"manufacturer": PATIENTS - size}


@pytest.mark.parametrize(("loss", "margins", "promote"), [(0.03, 2.0, True), (0.03, 1.0, False), (0.05, 2.0, False)])
def test_subgroup_may_lose_so_many_margins(loss: float, margins: float, promote: bool) -> None:
    change = np.full(PATIENTS, 0.1)
    change[:6] = -loss
    groups = [{"tumour site": "chest-wall" if place < 6 else "other"} for place in range(PATIENTS)]
    found = verdict(0.0, per_patient=change, groups=groups, subgroup_margin=margins)
    assert found.promote == promote
    if margins == 2 and not promote:
        assert found.reasons[0] == (
            "Among the 6 patients of tumour site chest-wall the mean Dice falls behind by more than 2 margins of "
            "0.0200: -0.0500."
        )


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["A"] * 21 + [""] * 3, "manufacturer unknown: 3 patients, in no group"),
        (["A"] * 23 + [""], "manufacturer unknown: 1 patient, in no group"),
        ([""] * 24, "manufacturer unknown: all 24 patients, in no group"),
        (["A"] * 24, ""),
    ],
)
def test_page_counts_patients_of_unknown_group(names: list[str], sentence: str) -> None:
    found = verdict(0.03, groups=[{"manufacturer": name} for name in names])
    page = gate_page("l3-slice", found, RULES, {}, 0.0, [])
    assert sentence in page
    assert page.count(" unknown: ") == bool(sentence)


def test_page_says_which_sign_is_worse() -> None:
    page = gate_page("l3-slice", rate_verdict(1), RULES, {}, 0.0, [])
    for text in ("-1.00 mm, better", "-0.0417, worse", "0.0417 (one case)"):
        assert text in page, text


def test_undefined_headline_is_refused() -> None:
    measure = Measure("dice", "mean Dice", MeanFigure(np.zeros((2, 3)), np.zeros(3)), 0.02, True)
    found = decide([measure], [False] * 3, [{}] * 3, (1, 1), replace(RULES, min_patients=1))
    assert (found.promote, found.reasons[-1]) == (False, "The mean Dice is undefined on these patients.")


def test_same_data_same_verdict_and_page() -> None:
    groups = [{"slice thickness": "0 to 1.5 mm" if place % 2 else "over 3 mm"} for place in range(PATIENTS)]
    pages = []
    for _ in range(2):
        found = verdict(0.03, groups=groups)
        pairs = {"Dice": np.stack([np.linspace(0.5, 0.9, PATIENTS), np.linspace(0.4, 0.8, PATIENTS)])}
        pages.append(gate_page("lung-tumour", found, RULES, pairs, 2e-4, [("Champion", "version 1 <of> a name")]))
    assert pages[0] == pages[1]
    page = pages[0]
    assert found.reasons[0] in page
    assert found.differences["dice"].low is not None
    for text in (
        "new champion",
        "Research use only",
        "2,000 resamples with seed 0",
        "up to 0.0002 from the exact one",
        f"{found.differences['dice'].low:+.4f} to {found.differences['dice'].high:+.4f}",
        "slice thickness: over 3 mm",
        "version 1 &lt;of&gt; a name",
        "Dice of 24 patients: 24 higher with the challenger, 0 lower, 0 equal.",
    ):
        assert text in page, text
    assert page.count("<svg") == 2


def test_slice_errors_are_averaged_over_labelled_series(tmp_path: Path) -> None:
    """Patient a has two labelled series, b one, c none; an undetected series keeps its error."""
    series = [("c", None, True), ("a", 2.0, True), ("b", 9.0, False), ("a", 4.0, True)]
    for name, shift in (("new", 0.0), ("old", 3.0)):
        rows = [
            {"patient": key, "error_mm": None if error is None else error + shift, "detected": found or name == "new"}
            for key, error, found in series
        ]
        (tmp_path / name).mkdir()
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name / "patients.parquet")
    tables = [by_patient(tmp_path / name, ["a", "b", "c"]) for name in ("new", "old")]
    found = detection_trial(Config(), tables, [{}, {}, {}])
    assert found.carrying == [True, True, False]
    error, rate = (paired_difference(item.figure, 1000, 0) for item in found.measures)
    assert (error.challenger, error.champion, error.difference) == pytest.approx((5.0, 8.0, -3.0))
    assert (rate.challenger, rate.champion) == pytest.approx((1.0, 2 / 3))
    assert [item.higher_is_better for item in found.measures] == [False, True]
    assert found.pairs["Slice error, mm"].tolist() == [[3.0, 9.0], [6.0, 12.0]]
    with pytest.raises(ArtifactError, match="is of 3 patients, expected the 2 test patients"):
        by_patient(tmp_path / "new", ["a", "b"])
    with pytest.raises(ArtifactError, match="cannot be read"):
        by_patient(tmp_path / "none", ["a"])


@pytest.mark.parametrize(
    ("task", "size", "sentence"),
    [
        ("lung-tumour", 64, r"is for lung-tumour on images of 32 x 32 pixels, .*, the new model for .* of 64 x 64"),
        ("l3-slice", 32, "the new model for l3-slice on images of 32 x 32 pixels"),
    ],
)
def test_champion_of_other_images_is_named(tmp_path: Path, task: str, size: int, sentence: str) -> None:
    card, who = read_card(tiny_model(tmp_path, size=32)), "champion x version 1"

    def of(task: str, size: int) -> SliceSet:
        return cast(SliceSet, SimpleNamespace(task=task, shape=(size, size), window=window_for(task, size=size)))

    check_images(card, of("lung-tumour", 32), who)
    with pytest.raises(IncomparableError, match=f"{who}.*{sentence}"):
        check_images(card, of(task, size), who)


def test_manufacturer_is_one_group_whatever_its_spelling() -> None:
    for written, expected in {
        "SIEMENS": "Siemens", "Siemens Healthineers": "Siemens", " siemens ": "Siemens", "GE MEDICAL SYSTEMS": "GE",
        "Philips Medical Systems": "Philips", "TOSHIBA": "Canon", "Canon Medical Systems": "Canon", "": "",
        "Acme  Imaging": "ACME IMAGING", "acme imaging": "ACME IMAGING",
    }.items():  # fmt: skip
        assert maker(written) == expected


def test_groups_of_patients(tmp_path: Path) -> None:
    index = [
        SimpleNamespace(patient="a", series="s1", spacing_slice=5.0, subgroup="chest-wall"),
        SimpleNamespace(patient="a", series="s2", spacing_slice=5.0, subgroup="chest-wall"),
        SimpleNamespace(patient="b", series="s3", spacing_slice=2.5, subgroup=""),
        SimpleNamespace(patient="b", series="s3", spacing_slice=2.5, subgroup=""),
    ]
    slices = cast(SliceSet, SimpleNamespace(index=index, task=SEGMENTATION))
    rows = {"a": [0, 1], "b": [2, 3]}
    assert groups_of(slices, rows, None) == [
        {"tumour site": "chest-wall", "slice thickness": "over 3 mm", "manufacturer": ""},
        {"tumour site": "", "slice thickness": "1.5 to 3 mm", "manufacturer": ""},
    ]
    (tmp_path / "store").mkdir()
    writer = SeriesStoreWriter(tmp_path / "store")
    for key, written, thickness in (("s1", "ACME", 1.5), ("s2", "Other", 1.0), ("s3", "ACME ", None)):
        row = series_row(key, manufacturer=written, slice_thickness=thickness)
        writer.add(row, [0.0, 2.5, 5.0], [0, 0, 0])
    writer.finish()
    assert groups_of(slices, rows, tmp_path / "store") == [
        {"tumour site": "chest-wall", "slice thickness": "0 to 1.5 mm", "manufacturer": "several"},
        {"tumour site": "", "slice thickness": "1.5 to 3 mm", "manufacturer": "ACME"},
    ]


def series_row(key: str, **more: object) -> SeriesRow:
    return SeriesRow(
        key=key, patient="p", slices=3, rows=4, columns=5, spacing_slice=2.5, spacing_row=0.7, spacing_column=0.7,
        origin=[0.0] * 3, direction=[0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0], pixel_sha256="a", sop_sha256="b",
        source="dicom", **more,  # type: ignore[arg-type]
    )  # fmt: skip
