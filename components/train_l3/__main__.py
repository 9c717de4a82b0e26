"""`python -m hounsfield.components.train_l3`: the step by hand, and the trial of a search."""

from hounsfield.components.train_l3.config import Config
from hounsfield.components.train_l3.run import run
from hounsfield.components.training_command import Locations, train
from hounsfield.step import command_line


class Arguments(Config, Locations):
    """Train an L3 slice detection network."""


def work(arguments: Arguments) -> None:
    train(arguments, Config, "l3-slice", run)


if __name__ == "__main__":
    command_line(Arguments, work, "python -m hounsfield.components.train_l3")
