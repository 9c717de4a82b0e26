"""HU slices to network input: this package's two windows against MONAI, SimpleITK and NumPy recipes.

python benchmarks/window.py [--slices 64] [--rounds 5]
"""

import argparse

import numpy as np
import SimpleITK as sitk
import torch
from monai.transforms import Compose, Resize, ScaleIntensity, ScaleIntensityRange
from timing import interleaved, print_rates

from hounsfield.windowing import L3, MEDIASTINAL

OURS = "ours, 16 slices at a time"
BLOCK = 16


def main() -> None:
    """Time both windows and print a table each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    hu = np.random.default_rng(0).integers(-1024, 2000, (options.slices, 512, 512), dtype=np.int16)
    blocks = [torch.from_numpy(hu[i : i + BLOCK]) for i in range(0, len(hu), BLOCK)]
    buffer = np.empty((512, 512), np.float32)
    monai_window = ScaleIntensityRange(-125, 225, 0, 255, clip=True)
    monai_l3 = Compose(
        [ScaleIntensityRange(-200, 1500, 0, 1, clip=True), ScaleIntensity(0, 1), Resize((224, 224), mode="bilinear")]
    )

    def numpy_in_place() -> None:
        for part in hu:
            np.clip(part, -125, 225, out=buffer)
            np.multiply(np.add(buffer, 125, out=buffer), 255 / 350, out=buffer)
            np.rint(buffer, out=buffer).astype(np.uint8)

    def simpleitk_l3() -> None:
        for part in hu:
            image = sitk.Clamp(sitk.Cast(sitk.GetImageFromArray(part), sitk.sitkFloat32), sitk.sitkFloat32, -200, 1500)
            image = sitk.RescaleIntensity(image, 0, 1)
            spacing = [512 / 224] * 2
            sitk.Resample(image, (224, 224), sitk.Transform(), sitk.sitkLinear, (0, 0), spacing)

    mediastinal = {
        "limit: copy": lambda: [part.copy() for part in hu],
        OURS: lambda: [MEDIASTINAL.stored(block) for block in blocks],
        "NumPy, slice by slice in one buffer": numpy_in_place,
        "MONAI ScaleIntensityRange": lambda: [np.asarray(monai_window(part[None])).astype(np.uint8) for part in hu],
        "SimpleITK IntensityWindowing": lambda: [
            sitk.IntensityWindowing(sitk.Cast(sitk.GetImageFromArray(part), sitk.sitkFloat32), -125, 225, 0, 255)
            for part in hu
        ],
        "NumPy, whole volume in float64": lambda: ((np.clip(hu.astype(float), -125, 225) + 125) * 255 / 350).astype(
            np.uint8
        ),
    }
    l3 = {
        OURS: lambda: [L3.stored(block) for block in blocks],
        "MONAI Compose": lambda: [monai_l3(part[None]) for part in hu],
        "SimpleITK": simpleitk_l3,
    }
    for title, contenders in (("350/50 HU to 8 bits, 512x512", mediastinal), ("L3 window and stretch to 224x224", l3)):
        print_rates(title, interleaved(contenders, options.rounds), options.slices, "slices", OURS)


if __name__ == "__main__":
    main()
