"""Every error that a user can cause or cure.

    HounsfieldError
    ├── InputError      the data or an argument cannot be used
    ├── ArtifactError   a store, slice set, model or evaluation is missing, incomplete or of another version
    └── TrainingError   a training ended without a usable model

Command lines print the message of any of them as one line and exit with code 2. A message says what was expected,
what came and what to do, and never carries a patient's name, birth date or original identifiers.
"""


class HounsfieldError(Exception):
    """Root of the errors that are reported as one line."""


class InputError(HounsfieldError):
    """The data or an argument cannot be used."""


class ArtifactError(HounsfieldError):
    """A series store, slice set, model or evaluation is missing, incomplete or of another version."""


class TrainingError(HounsfieldError):
    """A training ended without a usable model."""
