"""Parameters of dicom-ingest."""

from pydantic import Field

from hounsfield.step import StepConfig


class Config(StepConfig):
    """Which label regions are wanted and what is required of a series."""

    roi: str = Field(
        "",
        description="wanted region: name, shell pattern or regular expression (SEG segment, RTSTRUCT ROI, label file)",
    )
    label_value: int = Field(
        0,
        ge=0,
        description="wanted value of label volumes and segment number of SEG (TotalSegmentator L3: 29); 0 for any",
    )
    min_slices: int = Field(3, ge=2, description="series with fewer slices are not used")
    allow_empty_labels: bool = Field(
        False, description="keep cases whose label has no voxel (true negatives) instead of refusing them"
    )
    workers: int = Field(0, ge=0, description="threads that read and decode; 0 takes the cores at hand")
