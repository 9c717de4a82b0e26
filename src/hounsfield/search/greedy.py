"""The order of the lung-tumour paper: best alpha under BL, then best gamma under FL, then best beta under CL."""

from collections.abc import Mapping, Sequence

from hounsfield.errors import InputError, TrainingError
from hounsfield.search.space import GRIDS, Parameters, Space
from hounsfield.search.study import Propose, Trial, best_of

STEPS = (("bl", "alpha"), ("fl", "gamma"), ("cl", "beta"))
"""Loss of a step and the parameter that it finds; the parameters of earlier steps stay fixed."""


def greedy(grids: Mapping[str, Sequence[float]]) -> Propose:
    """Propose each grid in turn, with the winners of the grids before; at a tie the first on the grid wins."""

    def propose(history: Sequence[Trial]) -> Parameters | None:
        found: Parameters = {}
        for loss, name, part in _parts(grids, history):
            if len(part) < len(grids[name]):
                return {"loss": loss, **found, name: grids[name][len(part)]}
            found[name] = _winner(part, loss).parameters[name]
        return None

    return propose


def winners(grids: Mapping[str, Sequence[float]], history: Sequence[Trial]) -> dict[str, Trial]:
    """The winner of each finished step by its loss: bl, fl, cl."""
    return {loss: _winner(part, loss) for loss, name, part in _parts(grids, history) if len(part) == len(grids[name])}


def steps(grids: Mapping[str, Sequence[float]], history: Sequence[Trial]) -> list[tuple[str, str, Sequence[Trial]]]:
    """Loss, searched parameter and trials of each step that has begun."""
    return [(loss, name, part) for loss, name, part in _parts(grids, history) if part]


def trial_count(grids: Mapping[str, Sequence[float]]) -> int:
    """Number of trainings that the three steps take."""
    return sum(len(grids[name]) for _, name in STEPS)


def grids_of(space: Space, values: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
    """The declared grids, those in `values` replaced.

    Raises:
        InputError: an unknown name, an empty grid, or a value that is outside of the space or changes the loss.
    """
    unknown = values.keys() - GRIDS.keys()
    if unknown:
        raise InputError(f"grid of {', '.join(sorted(unknown))}: expected alpha, gamma or beta")
    grids: dict[str, Sequence[float]] = {}
    for loss, name in STEPS:
        grid = list(dict.fromkeys(values.get(name, GRIDS[name])))
        if not grid:
            raise InputError(f"the grid of {name} is empty: give at least one value")
        for value in grid:
            setting = {"loss": loss, "alpha": 0.5, "gamma": 1.0, "beta": 0.5} | {name: value}
            if space.canonical(setting).get(name) != value:
                raise InputError(f"the grid of {name} holds {value:g}, which makes {loss} another loss: leave it out")
        grids[name] = grid
    return grids


def _parts(grids: Mapping[str, Sequence[float]], history: Sequence[Trial]) -> list[tuple[str, str, Sequence[Trial]]]:
    parts, start = [], 0
    for loss, name in STEPS:
        end = start + len(grids[name])
        parts.append((loss, name, history[start:end]))
        start = end
    return parts


def _winner(part: Sequence[Trial], loss: str) -> Trial:
    best = best_of(part)
    if best is None:
        raise TrainingError(f"every training under {loss} failed, so the search cannot go on; first: {part[0].cause}")
    return best
