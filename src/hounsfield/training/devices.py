"""The processes that share a training: one, several of one machine, or those that torchrun started on many."""

import os
from dataclasses import dataclass
from typing import Literal, Self

import torch
from lightning.fabric import Fabric
from torch import distributed

from hounsfield.training.probe import Precision


@dataclass(frozen=True)
class Devices:
    """`count` processes on each of `nodes` machines; `launched` when torchrun started this one among them."""

    count: int
    nodes: int = 1
    launched: bool = False

    @classmethod
    def here(cls, wanted: int | Literal["auto"] = "auto") -> Self:
        """Those of torchrun's environment; without it `wanted` of this machine ("auto": every GPU, else the CPU)."""
        if distributed.is_torchelastic_launched():
            count = int(os.environ["LOCAL_WORLD_SIZE"])
            return cls(count, int(os.environ["WORLD_SIZE"]) // count, launched=True)
        return cls((torch.cuda.device_count() or 1) if wanted == "auto" else wanted)

    @property
    def spawned(self) -> bool:
        """Whether processes other than this one train, started by it."""
        return self.count > 1 and not self.launched

    @property
    def leader(self) -> bool:
        """Whether this process stores the outcome."""
        return not self.launched or os.environ["RANK"] == "0"

    def fabric(self, precision: Precision) -> Fabric:
        """Lightning Fabric over these processes."""
        strategy = "ddp_spawn" if self.spawned else "ddp" if self.launched else "auto"
        return Fabric(
            accelerator="gpu" if torch.cuda.is_available() else "cpu",
            devices=self.count,
            num_nodes=self.nodes,
            strategy=strategy,
            precision="bf16-mixed" if precision == "bf16" else "32-true",
        )
