"""DICOM CT, label objects and volumes in; one axis order, Hounsfield units and pseudonyms out."""
