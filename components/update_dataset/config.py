"""Parameters of update-dataset."""

from pydantic import Field

from hounsfield.components.dicom_ingest.config import Config as Ingest


class Config(Ingest):
    """How series are ingested, and what becomes of those that the input no longer has."""

    keep_absent: bool = Field(
        True, description="keep series of the dataset that the input no longer has; otherwise they are taken out"
    )
