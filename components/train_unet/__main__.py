"""`python -m hounsfield.components.train_unet`: the step by hand, and the trial of a search."""

from hounsfield.components.train_unet.config import Config
from hounsfield.components.train_unet.run import run
from hounsfield.components.training_command import Locations, train
from hounsfield.step import command_line


class Arguments(Config, Locations):
    """Train a lung-tumour segmentation network."""


def work(arguments: Arguments) -> None:
    train(arguments, Config, "lung-tumour", run)


if __name__ == "__main__":
    command_line(Arguments, work, "python -m hounsfield.components.train_unet")
