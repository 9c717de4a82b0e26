"""What the trials of a simulated cluster do: a function of the configuration that their command line stands for."""

from collections.abc import Callable, Sequence
from typing import Any

from katib_api import Ended, Trainer

from hounsfield.components.train_l3 import __main__ as l3_command
from hounsfield.components.train_unet import __main__ as unet_command
from hounsfield.components.training_command import assigned
from hounsfield.step import command_line

COMMANDS: dict[str, tuple[Any, str]] = {
    "hounsfield.components.train_unet": (unet_command.Arguments, "lung-tumour"),
    "hounsfield.components.train_l3": (l3_command.Arguments, "l3-slice"),
}


def configured(words: Sequence[str]) -> Any:
    """The training configuration that a trial's command line stands for, as the training step reads it."""
    arguments, task = COMMANDS[words[2]]
    parsed: list[Any] = []
    command_line(arguments, parsed.append, words[2], list(words[3:]))
    config = (
        type(parsed[0])
        .__mro__[1]
        .model_validate(parsed[0].model_dump(include=set(type(parsed[0]).__mro__[1].model_fields)))
    )
    return assigned(config, task, parsed[0])


def trained(score: Callable[[Any], float]) -> Trainer:
    """Trials that print `score` of their configuration, after lines that must not be taken for it."""

    def trains(words: list[str], attempt: int) -> Ended:
        config = configured(words)
        value = score(config)
        name = "val_average_precision" if hasattr(config, "loss") else "val_f1"
        return Ended(printed=f"progress train 1/2 loss=0.5 {name}=0.99\nval_loss=1.5\n{name}={value:.6f}\n")

    return trains


def by_alpha(config: Any) -> float:
    losses = {"bl": 0.0, "fl": 0.05, "cl": 0.1}
    return 0.8 - abs(config.alpha - 0.25) + losses[config.loss] - 0.01 * config.seed
