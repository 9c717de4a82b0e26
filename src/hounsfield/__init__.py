"""CT series in, registered models out: lung-tumour segmentation and L3 slice detection."""

__version__ = "0.1.0"
