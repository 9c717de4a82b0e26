"""What the losses share."""

from torch import nn


class BatchLoss(nn.Module):
    """A loss of a batch.

    Set `synchronised` when the batch is divided over the processes of a torch.distributed group whose gradients are
    averaged: the loss and its gradient are then those of the whole batch, also for shares of different size.
    """

    def __init__(self) -> None:
        super().__init__()
        self.synchronised: bool = False
