"""Parameters of train-unet."""

from typing import Literal

from pydantic import Field

from hounsfield.components.training_config import TrainingConfig


class Config(TrainingConfig):
    """Train a lung-tumour segmentation network."""

    architecture: Literal["unet", "segnet", "enet"] = Field("unet", description="segmentation network")
    base_channels: int = Field(
        0, ge=0, description="channels of the first level; 0 for the published width: unet and segnet 64, enet 16"
    )
    depth: int = Field(
        5,
        ge=2,
        description="levels of unet and segnet (at most 5); image sizes must be multiples of 2^depth, 2^(depth - 1)",
    )
    batch_norm: bool = Field(False, description="batch norm after every 3x3 convolution of unet")
    loss: Literal["ce", "bl", "fl", "dice", "cl"] = Field(
        "cl", description="cross entropy, balanced cross entropy, focal, Dice, or (1 - beta) focal + beta Dice"
    )
    alpha: float = Field(0.25, ge=0, le=1, description="weight of tumour pixels in bl, fl and cl")
    gamma: float = Field(4.0, ge=0, description="focusing exponent of fl and cl")
    beta: float = Field(0.7, ge=0, le=1, description="share of Dice in cl")
    smooth: float = Field(1e-6, gt=0, description="smoothing of Dice")
    prior: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="tumour probability that the untrained network gives everywhere; 0 leaves its last layer at random",
    )
    learning_rate: float = Field(1e-3, gt=0, description="learning rate of Adam")
    adam_beta2: float = Field(
        0.999,
        ge=0,
        lt=1,
        description="decay of Adam's squared gradients; 0.98 suits trainings of a few hundred steps: gradients of fl "
        "shrink a hundredfold, and at 0.999 the first ones would keep the steps small to the end",
    )
    batch_size: int = Field(30, ge=1, description="slices per step, over all devices together")
    epochs: int = Field(100, ge=1, description="passes over the training slices")
    negatives_per_positive: float = Field(
        0.0,
        ge=0,
        description="slices without tumour in an epoch for each one with, drawn anew every epoch; 0 for all",
    )
    threshold: float = Field(0.5, gt=0, lt=1, description="probability above which a pixel counts as tumour")
