"""Synthetic CT: seeded random anatomy of chest and abdomen, scanned into DICOM series with expert-like labels."""

from hounsfield.phantom.cohort import make_patient, write_cohort

__all__ = ["make_patient", "write_cohort"]
