"""What to try next: Bayesian optimisation with a Gaussian process, and the seeds of a repeated winner.

The Gaussian process models the objective itself, F1 or AP. For F1 that has the same optimum as the paper's 1/F1, which
is what a study records, but not its pole: one trial with an F1 near 0 would flatten the differences among all others.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, RandomSampler
from optuna.trial import TrialState, create_trial

from hounsfield.search.space import Parameters, Space
from hounsfield.search.study import COMPLETE, FAILED, Propose, Trial

STARTUP_TRIALS = 8
RANDOM_DRAWS = 20


def bayesian(
    space: Space,
    trials: int,
    seed: int,
    first: Parameters | None = None,
    startup: int = STARTUP_TRIALS,
) -> Propose:
    """Propose `trials` settings: `first` if given, random ones up to `startup` (at most half), then Gaussian process.

    Every proposal has its own seed, made of `seed` and its number, so it depends on the trials before and on nothing
    else. A failed trial counts as the worst complete one. In place of a setting that was tried before comes that of a
    process without noise, which gains nothing from trying it again, or else a random one.
    """
    startup = max(1, min(startup, trials // 2))
    distributions = space.distributions()

    def propose(history: Sequence[Trial]) -> Parameters | None:
        number = len(history)
        if number >= trials:
            return None
        if number == 0 and first is not None:
            return first
        own_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        samplers: list[BaseSampler] = [
            *(_gaussian_process(own_seed, startup, deterministic) for deterministic in (False, True)),
            *(RandomSampler(seed=own_seed + draw) for draw in range(1, RANDOM_DRAWS + 1)),
        ]
        seen = [trial.parameters for trial in history]
        parameters: Parameters = {}
        for sampler in samplers:
            study = in_memory(space, history, sampler)
            parameters = space.canonical(study.ask(distributions).params)
            if parameters not in seen:
                break
        return parameters

    return propose


def _gaussian_process(seed: int, startup: int, deterministic: bool) -> GPSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return GPSampler(
            seed=seed,
            n_startup_trials=startup,
            independent_sampler=RandomSampler(seed=seed),
            deterministic_objective=deterministic,
            warn_independent_sampling=False,
        )


def in_memory(space: Space, history: Sequence[Trial], sampler: BaseSampler | None = None) -> optuna.Study:
    """An Optuna study that maximises the objective over `history`, in which every trial has all parameters.

    Failed trials have the lowest objective of the complete ones; without a complete trial the study is empty.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    scores = [trial.score for trial in history if trial.score is not None]
    distributions = space.distributions()
    for trial in history if scores else []:
        if trial.state in (COMPLETE, FAILED):
            value = min(scores) if trial.score is None else trial.score
            parameters = space.complete(trial.parameters)
            study.add_trial(
                create_trial(state=TrialState.COMPLETE, value=value, params=parameters, distributions=distributions)
            )
    return study


def seeds(first: int, count: int) -> Propose:
    """Propose the training seeds `first`, `first + 1`, ..., `count` of them."""

    def propose(history: Sequence[Trial]) -> Parameters | None:
        return {"seed": first + len(history)} if len(history) < count else None

    return propose
