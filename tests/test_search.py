"""Searches on functions instead of trainings: proposals, studies, failures, kills."""

import json
import math
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from hounsfield.errors import InputError, OutOfMemory, Preempted, TrainingError
from hounsfield.search.greedy import greedy, grids_of, trial_count, winners
from hounsfield.search.objective import Objective
from hounsfield.search.proposals import bayesian, in_memory, seeds
from hounsfield.search.space import GRIDS, Parameters, space_for
from hounsfield.search.study import Study, Trial, best_of, locked, preemptible

LUNG, L3 = space_for("lung-tumour"), space_for("l3-slice")
AP, F1 = Objective("average_precision"), Objective("f1")


def study(folder: Path, objective: Objective = AP, space: Any = LUNG) -> Study:
    return Study(folder, "search", objective, space.distributions())


def f1_of(parameters: Mapping[str, Any]) -> float:
    """Best 0.97 at learning rate 1e-3, class weight 0.6, oversampling 0.1, batch 32, global norm."""
    loss = 0.25 * (math.log10(parameters["learning_rate"]) + 3) ** 2 + (parameters["class_weight"] - 0.6) ** 2
    loss += 9 * (parameters["oversampling_rate"] - 0.1) ** 2 + 0.1 * (parameters["batch_size"] != 32)
    return max(0.0, 0.97 - loss - 0.05 * (parameters["gradient_threshold_method"] == "l2norm"))


def ap_of(parameters: Mapping[str, Any]) -> float:
    """As in the paper's U-Net rows: alpha 0.25, then gamma 4, then beta 0.7 are best, and each step gains."""
    score = 0.7 - 0.3 * abs(parameters["alpha"] - 0.25)
    if "gamma" in parameters:
        score += 0.05 - 0.02 * abs(parameters["gamma"] - 4)
    if "beta" in parameters:
        score += 0.05 - 0.05 * abs(parameters["beta"] - 0.7)
    return score


def told(score: float, number: int, parameters: Parameters, state: str = "complete") -> Trial:
    known = score if state == "complete" else None
    return Trial(number, parameters, state, known, known, "", -1, 0, 0.0, 0.0, {})


class TestObjective:
    def test_f1_is_minimised_as_its_inverse_without_a_pole(self) -> None:
        assert F1.direction == "minimize"
        assert [F1.value(score) for score in (0.0, 0.005, 0.5, 1.0)] == [100, 100, 2, 1]
        assert F1.notes(0.0)["log_f1"] == pytest.approx(math.log(0.01))
        assert (AP.direction, AP.value(0.3), AP.notes(0.3)) == ("maximize", 0.3, {"average_precision": 0.3})

    @pytest.mark.parametrize(
        ("metrics", "sentence"),
        [
            ({"val_loss": 0.2}, "reported no val_f1: it reported val_loss"),
            ({"val_f1": math.nan}, "val_f1 is nan"),
            ({"val_f1": 1.5}, "expected 0 to 1"),
        ],
    )
    def test_missing_and_impossible_objectives_are_refused(self, metrics: dict[str, float], sentence: str) -> None:
        with pytest.raises(TrainingError, match=sentence):
            F1.read(metrics)


class TestStudy:
    def test_trials_are_stored_and_read_back(self, tmp_path: Path) -> None:
        trials = study(tmp_path, F1, L3).run(
            bayesian(L3, 3, 0), lambda p: {"val_f1": f1_of(p), "val_loss": 0.5, "val_recall": math.nan}
        )
        assert [trial.number for trial in trials] == [0, 1, 2]
        for trial in trials:
            assert trial.score == f1_of(trial.parameters)
            assert trial.value == pytest.approx(1 / max(trial.score, 0.01))
            assert trial.metrics == {"val_f1": trial.score, "val_loss": 0.5}
        assert study(tmp_path, F1, L3).trials() == trials
        stored = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path}/study.db")
        assert stored.best_trial.number == best_of(trials).number  # type: ignore[union-attr]
        assert stored.best_trial.user_attrs["log_f1"] == pytest.approx(math.log(max(best_of(trials).score, 0.01)))  # type: ignore[union-attr,type-var]

    def test_failures_keep_their_cause_and_do_not_end_the_study(self, tmp_path: Path) -> None:
        results: list[Any] = [
            TrainingError("the loss became\n NaN"), OutOfMemory("no memory"), {"val_loss": 1.0},
            {"val_average_precision": math.nan}, {"val_average_precision": 0.4},
        ]  # fmt: skip

        def evaluate(parameters: Parameters) -> Mapping[str, float]:
            result = results.pop(0)
            if isinstance(result, Exception):
                raise result
            return result  # type: ignore[no-any-return]

        trials = study(tmp_path).run(bayesian(LUNG, 5, 0), evaluate)
        assert [trial.state for trial in trials] == ["failed"] * 4 + ["complete"]
        assert [trial.cause for trial in trials[:2]] == ["the loss became NaN", "no memory"]
        assert "reported no val_average_precision" in trials[2].cause
        assert "val_average_precision is nan" in trials[3].cause
        assert best_of(trials) == trials[4]

    def test_other_errors_leave_the_trial_for_the_next_call(self, tmp_path: Path) -> None:
        asked: list[Parameters] = []

        def stopped(parameters: Parameters) -> Mapping[str, float]:
            asked.append(parameters)
            raise KeyboardInterrupt

        for _ in range(5):
            with pytest.raises(KeyboardInterrupt):
                study(tmp_path).run(bayesian(LUNG, 2, 0), stopped)
        assert asked == [asked[0]] * 5
        trials = study(tmp_path).run(bayesian(LUNG, 2, 0), lambda p: {"val_average_precision": 0.5})
        assert [trial.state for trial in trials] == ["complete"] * 2
        assert trials[0].parameters == asked[0]

    def test_parameters_seen_before_are_not_trained_again(self, tmp_path: Path) -> None:
        wanted: list[Parameters] = [
            {"loss": "bl", "alpha": 0.25}, {"loss": "bl", "alpha": 0.5}, {"loss": "bl", "alpha": 0.25},
            {"loss": "bl", "alpha": 0.5}, {"loss": "bl", "alpha": 0.25},
        ]  # fmt: skip
        trained: list[Parameters] = []

        def evaluate(parameters: Parameters) -> Mapping[str, float]:
            trained.append(parameters)
            if parameters["alpha"] == 0.5:
                raise TrainingError("diverged")
            return {"val_average_precision": 0.6}

        trials = study(tmp_path).run(lambda done: wanted[len(done)] if len(done) < 5 else None, evaluate)
        assert trained == wanted[:2]
        assert [trial.same_as for trial in trials] == [-1, -1, 0, 1, 0]
        assert [trial.score for trial in trials] == [0.6, None, 0.6, None, 0.6]
        assert trials[3].cause == "diverged"

    def test_sigterm_between_trials_is_a_preemption(self, tmp_path: Path) -> None:
        def propose(history: Sequence[Trial]) -> Parameters | None:
            if len(history) == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return {"loss": "bl", "alpha": 0.05 * (len(history) + 1)}

        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(Preempted), preemptible():
            study(tmp_path).run(propose, lambda p: {"val_average_precision": 0.5})
        assert signal.getsignal(signal.SIGTERM) is before
        assert [trial.state for trial in study(tmp_path).trials()] == ["complete"]

    def test_only_one_process_searches_in_a_folder(self, tmp_path: Path) -> None:
        with (
            locked(tmp_path / "s"),
            pytest.raises(InputError, match="another search is at work"),
            locked(tmp_path / "s"),
        ):
            pass


class TestProposals:
    def test_proposals_depend_on_seed_and_history_alone(self) -> None:
        history: list[Trial] = []
        one, other, third = (bayesian(L3, 6, seed, startup=3) for seed in (7, 7, 8))
        for number in range(6):
            parameters = one(history)
            assert parameters is not None
            if number in (0, 4):
                assert other(history) == parameters
            if number == 0:
                assert third(history) != parameters
            history.append(told(f1_of(parameters), number, parameters))
        assert one(history) is None

    def test_given_parameters_come_first(self) -> None:
        given = LUNG.given({"loss": "cl", "alpha": 0.25, "gamma": 4.0, "beta": 0.7, "epochs": 3})
        assert bayesian(LUNG, 3, 0, given)([]) == {"loss": "cl", "alpha": 0.25, "gamma": 4.0, "beta": 0.7}
        assert LUNG.given({"loss": "dice", "alpha": 0.25, "gamma": 4.0, "beta": 0.7}) is None

    def test_failed_trials_count_as_the_worst(self) -> None:
        setting: list[Parameters] = [{"loss": "bl", "alpha": a} for a in (0.1, 0.2, 0.3)]
        history = [told(0.8, 0, setting[0]), told(0.0, 1, setting[1], "failed"), told(0.5, 2, setting[2])]
        seen = in_memory(LUNG, history)
        assert [trial.value for trial in seen.trials] == [0.8, 0.5, 0.5]
        assert seen.trials[0].params == {"loss": "bl", "alpha": 0.1, "gamma": 0.0, "beta": 0.0}
        assert in_memory(LUNG, history[1:2]).trials == []

    def test_no_setting_comes_twice_while_others_are_left(self) -> None:
        """Dice alone is best here, where 209 points of the space are one and the same setting."""
        history: list[Trial] = []
        propose = bayesian(LUNG, 14, 1, startup=4)
        while (parameters := propose(history)) is not None:
            score = 0.9 if parameters.get("beta") == 1 else 0.1 + 0.3 * float(parameters.get("beta", 0))
            history.append(told(score, len(history), parameters))
        settings = [json.dumps(trial.parameters, sort_keys=True) for trial in history]
        assert len(set(settings)) == len(settings)
        assert max(trial.score or 0 for trial in history) == 0.9

    def test_seeds_are_consecutive(self) -> None:
        assert seeds(4, 2)([]) == {"seed": 4}
        assert seeds(4, 2)([told(0.1, 0, {"seed": 4})]) == {"seed": 5}
        assert seeds(4, 2)([told(0.1, 0, {}), told(0.1, 1, {})]) is None

    @pytest.mark.slow
    def test_search_comes_nearer_to_a_known_optimum_than_chance(self) -> None:
        def best(seed: int, trials: int = 18) -> float:
            history: list[Trial] = []
            propose = bayesian(L3, trials, seed, startup=6)
            while (parameters := propose(history)) is not None:
                history.append(told(f1_of(parameters), len(history), parameters))
            return max(trial.score or 0.0 for trial in history)

        def by_chance(seed: int, trials: int = 18) -> float:
            drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
            return max(f1_of(L3.canonical(drawn.ask(L3.distributions()).params)) for _ in range(trials))

        found = statistics.mean(best(seed) for seed in range(4))
        chance = np.mean([by_chance(seed) for seed in range(60)])
        assert found > chance + 0.05
        assert found > 0.88


class TestGreedy:
    def test_order_and_winners(self, tmp_path: Path) -> None:
        grids = grids_of(LUNG, {})
        trials = study(tmp_path).run(greedy(grids), lambda p: {"val_average_precision": ap_of(p)})
        assert len(trials) == trial_count(grids) == sum(len(GRIDS[name]) for name in GRIDS)
        losses = [trial.parameters["loss"] for trial in trials]
        assert losses == sorted(losses, key=["bl", "fl", "cl"].index)
        assert {trial.parameters["alpha"] for trial in trials if trial.parameters["loss"] != "bl"} == {0.25}
        assert {trial.parameters["gamma"] for trial in trials if trial.parameters["loss"] == "cl"} == {4}
        won = winners(grids, trials)
        assert {loss: trial.parameters for loss, trial in won.items()} == {
            "bl": {"loss": "bl", "alpha": 0.25},
            "fl": {"loss": "fl", "alpha": 0.25, "gamma": 4},
            "cl": {"loss": "cl", "alpha": 0.25, "gamma": 4, "beta": 0.7},
        }
        assert won["bl"].score < won["fl"].score < won["cl"].score == best_of(trials).score  # type: ignore[operator,union-attr]

    def test_failures_lose_and_a_step_without_any_success_ends_it(self, tmp_path: Path) -> None:
        grids = grids_of(LUNG, {"alpha": [0.25, 0.75], "gamma": [2, 4], "beta": [0.5]})

        def diverges(parameters: Parameters) -> Mapping[str, float]:
            if parameters["alpha"] == 0.25 or parameters["loss"] == "cl":
                raise TrainingError("diverged")
            return {"val_average_precision": ap_of(parameters)}

        with pytest.raises(TrainingError, match=r"every training under cl failed, .* first: diverged"):
            study(tmp_path).run(greedy(grids), diverges)
        last = study(tmp_path).trials()[-1]
        assert last.parameters == {"loss": "cl", "alpha": 0.75, "gamma": 4, "beta": 0.5}
        assert last.cause == "diverged"

    @pytest.mark.parametrize(
        ("grid", "sentence"),
        [
            ({"delta": [1.0]}, "expected alpha, gamma or beta"),
            ({"alpha": []}, "grid of alpha is empty"),
            ({"gamma": [0.0]}, "holds 0, which makes fl another loss"),
            ({"beta": [0.55]}, "beta is 0.55: expected 0 to 1 in steps of 0.1"),
        ],
    )
    def test_grids_are_checked(self, grid: dict[str, list[float]], sentence: str) -> None:
        with pytest.raises(InputError, match=sentence):
            grids_of(LUNG, grid)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_search import LUNG, AP, ap_of, study
from hounsfield.search.greedy import greedy, grids_of
from hounsfield.search.proposals import bayesian
folder, deaths, strategy = Path(sys.argv[2]), set(map(int, sys.argv[3].split(","))), sys.argv[4]
propose = bayesian(LUNG, 6, 3, startup=2) if strategy == "bayesian" else greedy(
    grids_of(LUNG, {"alpha": [0.25, 0.75], "gamma": [2, 4], "beta": [0.3, 0.7]}))
running = study(folder)
def evaluate(parameters):
    number = len(running.trials()) - 1
    marker = folder / f"died{number}"
    if number in deaths and not marker.exists():
        if strategy == "bayesian":
            marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"val_average_precision": ap_of({"alpha": 0.5} | parameters)}
running.run(propose, evaluate)
"""


def search_in_a_process(folder: Path, deaths: str, strategy: str) -> int:
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(folder), deaths, strategy]
    return subprocess.run(command, capture_output=True, timeout=120).returncode


def settings_of(folder: Path) -> list[tuple[Parameters, str, float | None]]:
    return [(trial.parameters, trial.state, trial.score) for trial in study(folder).trials()]


@pytest.mark.slow
def test_killed_search_proposes_what_the_uninterrupted_one_does(tmp_path: Path) -> None:
    for name in ("killed", "whole"):
        (tmp_path / name).mkdir()
    assert search_in_a_process(tmp_path / "killed", "0,3", "bayesian") == -signal.SIGKILL
    assert search_in_a_process(tmp_path / "killed", "0,3", "bayesian") == -signal.SIGKILL
    assert search_in_a_process(tmp_path / "killed", "0,3", "bayesian") == 0
    assert search_in_a_process(tmp_path / "whole", "99", "bayesian") == 0
    assert settings_of(tmp_path / "killed") == settings_of(tmp_path / "whole")
    assert [trial.interruptions for trial in study(tmp_path / "killed").trials()] == [2, 1, 1, 2, 1, 1]


@pytest.mark.slow
def test_a_trial_that_kills_its_process_three_times_fails(tmp_path: Path) -> None:
    codes = [search_in_a_process(tmp_path, "1", "greedy") for _ in range(4)]
    assert codes == [-signal.SIGKILL] * 3 + [0]
    trials = study(tmp_path).trials()
    assert len(trials) == 6
    assert [trial.number for trial in trials if trial.state == "failed"] == [1]
    assert trials[1].cause.startswith("killed 3 times without a message")
