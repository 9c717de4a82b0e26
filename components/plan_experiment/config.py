"""Parameters of plan-experiment."""

from typing import Literal

from pydantic import Field

from hounsfield.step import StepConfig


class Config(StepConfig):
    """List the trainings of an experiment."""

    experiment: Literal["lung-tumour-ablation", "l3-slice-study"] = Field(
        "lung-tumour-ablation", description="networks x losses, or arms x folds; each times the seeds"
    )
    parameters: Literal["table", "greedy"] = Field(
        "table",
        description="loss parameters of the ablation: those of the paper's Table 1, or found by its greedy search "
        "on the training patients, for each network",
    )
    architectures: str = Field("segnet,enet,unet", description="networks of the ablation, separated by commas")
    losses: str = Field("bl,fl,cl", description="losses of the ablation, separated by commas")
    base_channels_segnet: int = Field(0, ge=0, description="channels of the first level of segnet; 0 for 64")
    base_channels_enet: int = Field(0, ge=0, description="channels of the first level of enet; 0 for 16")
    base_channels_unet: int = Field(0, ge=0, description="channels of the first level of unet; 0 for 64")
    arms: str = Field("control,proposed", description="arms of the study, separated by commas")
    folds: int = Field(5, ge=1, description="folds of the study that are held out in turn, from the first")
    seeds: int = Field(1, ge=1, description="trainings of each kind, with consecutive seeds")
    first_seed: int = Field(0, ge=0, description="first seed")
    grid: str = Field(
        "", description='greedy: JSON such as {"alpha": [0.25, 0.75]} in place of the declared grids; empty for those'
    )
