"""What the two papers print, as text, so that the digits they give stay known."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SegmentationRow:
    """A row of Table 1 of the lung-tumour paper: F1, precision and recall in percent, AP as a fraction.

    `gamma` and `beta` are empty where the loss has none.
    """

    run: str
    architecture: str
    loss: str
    alpha: str
    gamma: str
    beta: str
    f1: str
    precision: str
    recall: str
    ap: str


@dataclass(frozen=True)
class DetectionRow:
    """A row of Table 2 of the L3 paper: slice error, mean and standard deviation over patients."""

    method: str
    images: str
    mean: str
    sd: str


TABLE_1 = (
    SegmentationRow("SegNet+BL", "segnet", "BL", "0.75", "", "", "67.88", "55.87", "87.71", "0.746"),
    SegmentationRow("SegNet+FL", "segnet", "FL", "0.75", "5", "", "71.16", "59.78", "88.77", "0.763"),
    SegmentationRow("SegNet+CL", "segnet", "CL", "0.75", "5", "0.6", "72.45", "63.30", "85.28", "0.770"),
    SegmentationRow("E-Net+BL", "enet", "BL", "0.75", "", "", "65.73", "52.95", "89.36", "0.698"),
    SegmentationRow("E-Net+FL", "enet", "FL", "0.75", "2", "", "67.03", "57.81", "85.43", "0.726"),
    SegmentationRow("E-Net+CL", "enet", "CL", "0.75", "2", "0.3", "68.32", "55.17", "87.47", "0.741"),
    SegmentationRow("U-Net+BL", "unet", "BL", "0.25", "", "", "83.35", "88.91", "74.49", "0.805"),
    SegmentationRow("U-Net+FL", "unet", "FL", "0.25", "4", "", "88.39", "87.70", "89.15", "0.813"),
    SegmentationRow("U-Net+CL", "unet", "CL", "0.25", "4", "0.7", "88.77", "87.31", "90.30", "0.827"),
)
"""Lung-tumour segmentation. The text gives U-Net+BL a recall of 76.49 instead."""

TABLE_2 = (
    DetectionRow("FCN [3]", "frontal", "0.87", "4.66"),
    DetectionRow("VGG16 [4]", "frontal", "2.04", "2.54"),
    DetectionRow("VGG [5]", "axial", "0.87", "2.54"),
    DetectionRow("CNN [8]", "frontal", "1.53", "4.22"),
    DetectionRow("CNN [8]", "axial", "1.41", "5.02"),
    DetectionRow("ResNet50 (control)", "axial", "1.68", "1.43"),
    DetectionRow("ResNet50 (proposed)", "axial", "0.68", "1.26"),
)
"""L3 slice detection; the last two rows are the paper's own."""
