"""Registered models on new scans: series in, masks, measurements and DICOM objects out."""
