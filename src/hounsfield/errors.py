"""Every error that a user can cause or cure.

    HounsfieldError
    ├── InputError      the data or an argument cannot be used
    ├── ArtifactError   a store, slice set, model or evaluation is missing, incomplete or of another version
    ├── TrainingError   a training ended without a usable model
    │   └── OutOfMemory     because memory did not suffice
    └── Preempted       a training was told to stop; the same command continues it

Command lines print the message of any of them as one line and exit with the code that `hounsfield.step` gives it. A
message says what was expected, what came and what to do, and never carries a patient's name, birth date or original
identifiers.
"""


class HounsfieldError(Exception):
    """Root of the errors that are reported as one line."""


class InputError(HounsfieldError):
    """The data or an argument cannot be used."""


class ArtifactError(HounsfieldError):
    """A series store, slice set, model or evaluation is missing, incomplete or of another version."""


class TrainingError(HounsfieldError):
    """A training ended without a usable model."""


class OutOfMemory(TrainingError):  # noqa: N818
    """The memory of the device or of the machine did not suffice."""


class Preempted(HounsfieldError):  # noqa: N818
    """A training was told to stop (SIGTERM) and has saved its checkpoint."""

    def __init__(self) -> None:
        super().__init__("checkpoint saved, run the same command again to continue")
