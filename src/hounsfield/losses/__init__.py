"""Losses of the lung-tumour paper: cross entropy, balanced cross entropy, focal, Dice and their combination."""

from hounsfield.losses.batch import BatchLoss
from hounsfield.losses.binary import LOSSES, BinaryLoss, LossName, build_loss
from hounsfield.losses.weighted import WeightedCrossEntropy

__all__ = ["LOSSES", "BatchLoss", "BinaryLoss", "LossName", "WeightedCrossEntropy", "build_loss"]
