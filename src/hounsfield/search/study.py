"""A search that survives a kill: every trial is stored before it is trained and again with its outcome.

Trials live in an Optuna study on SQLite. What is tried next is a function of the trials so far (`Propose`), so a
study that was killed and resumed proposes what the uninterrupted one would have.
"""

import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import optuna
from filelock import FileLock, Timeout
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from hounsfield.errors import InputError, Preempted, TrainingError
from hounsfield.search.objective import Objective
from hounsfield.search.space import Parameters

DATABASE = "study.db"
MOST_INTERRUPTIONS = 3
COMPLETE, FAILED, RUNNING = "complete", "failed", "running"
STATES = {TrialState.COMPLETE: COMPLETE, TrialState.FAIL: FAILED, TrialState.RUNNING: RUNNING}
Distributions = Mapping[str, optuna.distributions.BaseDistribution]


@dataclass(frozen=True)
class Trial:
    """One setting that was tried. `score` is the objective (higher is better), `value` what the optimiser sees of it.

    `same_as` is the number of the earlier trial whose outcome was taken over, -1 when it was trained itself; `cause` is
    empty unless the trial failed; `started` is in seconds since 1970.
    """

    number: int
    parameters: Parameters
    state: str
    score: float | None
    value: float | None
    cause: str
    same_as: int
    interruptions: int
    started: float
    seconds: float
    metrics: dict[str, float]


Propose = Callable[[Sequence[Trial]], Parameters | None]
"""From the finished trials to the parameters of the next one; None ends the search."""
Evaluate = Callable[[Parameters], Mapping[str, float]]
"""From parameters to the metrics of their training; raises TrainingError when it fails."""
Observe = Callable[[Sequence[Trial]], None]


class Study:
    """The trials called `name` in the database `folder`/study.db, which is made when absent."""

    def __init__(self, folder: Path, name: str, objective: Objective, distributions: Distributions) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        for logger in ("alembic", "sqlalchemy"):
            logging.getLogger(logger).setLevel(logging.ERROR)
        self.folder, self.objective, self.distributions = folder, objective, dict(distributions)
        database = folder / DATABASE
        if not database.is_file():
            _make_database(database)
        self._storage = RDBStorage(f"sqlite:///{database.absolute()}")
        self._study = optuna.create_study(
            storage=self._storage, study_name=name, direction=objective.direction, load_if_exists=True
        )

    def trials(self) -> list[Trial]:
        """All trials in their order."""
        return [_read(trial) for trial in self._study.get_trials(deepcopy=False)]

    def run(self, propose: Propose, evaluate: Evaluate, observe: Observe = lambda _: None) -> list[Trial]:
        """Evaluate what `propose` asks for until it has enough; `observe` sees the trials after each.

        A trial that was cut off by a kill is evaluated again with its own parameters, and fails once that has happened
        three times. Parameters that were tried before take over their outcome. A TrainingError fails the trial; any
        other exception ends the call and leaves the trial to the next one.
        """
        for trial in self.trials():
            if trial.state == RUNNING:
                self._evaluate(trial.number, evaluate)
        trials = self.trials()
        observe(trials)
        while (parameters := propose(trials)) is not None:
            known = next((trial for trial in trials if trial.parameters == parameters), None)
            if known is None:
                self._add(parameters, TrialState.RUNNING, None, {"interruptions": 0})
                self._evaluate(len(trials), evaluate)
            else:
                self._take_over(known)
            trials = self.trials()
            observe(trials)
        return trials

    def _evaluate(self, number: int, evaluate: Evaluate) -> None:
        """Train trial `number`. Its interruption is counted before, and taken back when the process can still do so."""
        frozen = self._study.get_trials(deepcopy=False)[number]
        trial, identifier = _read(frozen), frozen._trial_id
        if trial.interruptions >= MOST_INTERRUPTIONS:
            cause = f"killed {trial.interruptions} times without a message, such as for want of memory"
            return self._fail(number, identifier, cause)
        note = self._storage.set_trial_user_attr
        note(identifier, "interruptions", trial.interruptions + 1)
        started = time.time()
        try:
            metrics = {name: float(value) for name, value in evaluate(trial.parameters).items()}
            score = self.objective.read(metrics)
        except TrainingError as error:
            note(identifier, "seconds", time.time() - started)
            return self._fail(number, identifier, " ".join(str(error).split()))
        except BaseException:
            note(identifier, "interruptions", trial.interruptions)
            raise
        note(identifier, "seconds", time.time() - started)
        note(identifier, "metrics", json.dumps({name: value for name, value in metrics.items() if value == value}))
        for name, figure in self.objective.notes(score).items():
            note(identifier, name, figure)
        self._study.tell(number, self.objective.value(score))
        return None

    def _fail(self, number: int, identifier: int, cause: str) -> None:
        self._storage.set_trial_user_attr(identifier, "cause", cause)
        self._study.tell(number, state=TrialState.FAIL)

    def _take_over(self, known: Trial) -> None:
        notes: dict[str, Any] = {"same_as": known.number if known.same_as < 0 else known.same_as, "interruptions": 0}
        notes |= {"metrics": json.dumps(known.metrics), "seconds": 0.0}
        if known.state == COMPLETE:
            notes |= self.objective.notes(known.score or 0.0)
            self._add(known.parameters, TrialState.COMPLETE, known.value, notes)
        else:
            self._add(known.parameters, TrialState.FAIL, None, notes | {"cause": known.cause})

    def _add(self, parameters: Parameters, state: TrialState, value: float | None, notes: dict[str, Any]) -> None:
        """Store a trial in one transaction."""
        distributions = {name: self.distributions[name] for name in parameters}
        self._study.add_trial(
            create_trial(state=state, value=value, params=parameters, distributions=distributions, user_attrs=notes)
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make `folder` and keep other processes from searching in it.

    Raises:
        InputError: it cannot be written, or another process is at work there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock", timeout=0):
            yield
    except Timeout as error:
        raise InputError(f"another search is at work in {folder}: wait for it or choose another --out") from error
    except PermissionError as error:
        raise InputError(f"cannot write {folder}: {error.strerror}: choose a writable folder") from error


@contextmanager
def preemptible() -> Iterator[None]:
    """Inside of it SIGTERM raises Preempted, as it does during a training. Other threads than the main one have none.

    Raises:
        Preempted: SIGTERM came.
    """

    def leave(number: int, frame: Any) -> NoReturn:
        raise Preempted

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The first of the complete trials with the highest objective."""
    return max(
        (trial for trial in trials if trial.state == COMPLETE),
        key=lambda trial: (trial.score or 0.0, -trial.number),
        default=None,
    )


def _make_database(database: Path) -> None:
    """A kill while the tables are made leaves no half-made database behind."""
    partial = database.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    storage = RDBStorage(f"sqlite:///{partial.absolute()}")
    storage.engine.dispose()
    partial.replace(database)


def _read(frozen: FrozenTrial) -> Trial:
    notes = frozen.user_attrs
    score = notes.get("f1", notes.get("average_precision"))
    complete = frozen.state == TrialState.COMPLETE
    return Trial(
        number=frozen.number,
        parameters=dict(frozen.params),
        state=STATES[frozen.state],
        score=score if complete else None,
        value=frozen.value if complete else None,
        cause=notes.get("cause", ""),
        same_as=notes.get("same_as", -1),
        interruptions=notes.get("interruptions", 0),
        started=frozen.datetime_start.timestamp() if frozen.datetime_start else 0.0,
        seconds=notes.get("seconds", 0.0),
        metrics=json.loads(notes.get("metrics", "{}")),
    )
