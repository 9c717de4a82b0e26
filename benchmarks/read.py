"""Reading a CT series of uncompressed slices into an int16 HU volume: this package against its peers, interleaved.

    python benchmarks/read.py [--slices 600] [--rounds 5]

Prints slices/s (median of the rounds, files in the page cache) and the ratio to the fastest peer.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from hounsfield.dicom.headers import InputFile, SliceHeader, read_header
from hounsfield.dicom.ingest import default_workers
from hounsfield.dicom.parallel import batched_map
from hounsfield.dicom.series import build_series


def generate(folder: Path, slices: int, size: int = 512) -> None:
    """Write one CT series of random pixels with a header of about the usual length."""
    rng = np.random.default_rng(0)
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    for k, number in enumerate(rng.permutation(slices)):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        dataset.SeriesInstanceUID, dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = series, study, frame
        dataset.Modality, dataset.ImageType, dataset.PatientID = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], "1"
        dataset.PatientName, dataset.StudyDate, dataset.StudyTime = "A", "20200101", "1200"
        dataset.Manufacturer, dataset.InstitutionName, dataset.StationName = "ACME", "Hospital", "CT1"
        dataset.KVP, dataset.XRayTubeCurrent, dataset.ExposureTime, dataset.ConvolutionKernel = 120, 200, 500, "B30f"
        dataset.GantryDetectorTilt, dataset.TableHeight, dataset.RotationDirection = 0, 150, "CW"
        dataset.ReconstructionDiameter, dataset.DataCollectionDiameter, dataset.FilterType = 400, 500, "BODY"
        dataset.SeriesNumber, dataset.AcquisitionNumber, dataset.InstanceNumber = 2, 1, int(number)
        dataset.SliceThickness, dataset.PixelSpacing, dataset.SliceLocation = 1, [0.8, 0.8], float(k)
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [-200, -200, float(k)], [1, 0, 0, 0, 1, 0]
        dataset.Rows = dataset.Columns = size
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
        dataset.WindowCenter, dataset.WindowWidth = 50, 350
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, -1024, "HU"
        dataset.PixelData = rng.integers(0, 3000, (size, size), dtype=np.uint16).tobytes()
        dataset.save_as(folder / f"{number:05d}.dcm", enforce_file_format=True)


def ours(files: list[Path]) -> np.ndarray:
    """Headers once, sorted by position, pixels straight into the volume."""
    with ThreadPoolExecutor(default_workers()) as pool:
        headers = list(batched_map(pool, read_header, [InputFile(path, path.name) for path in files], 64))
        series = build_series([header for header in headers if isinstance(header, SliceHeader)], 2)
        return series.read(pool)[0]


def read_bytes(files: list[Path]) -> np.ndarray:
    """The limit: every byte of the files, nothing understood."""
    buffer = bytearray(1 << 20)
    for path in files:
        with path.open("rb", buffering=0) as stream:
            stream.readinto(buffer)
    return np.empty(0)


def pydicom_float64(files: list[Path]) -> np.ndarray:
    """What most code does."""
    datasets = sorted((pydicom.dcmread(path) for path in files), key=lambda d: float(d.ImagePositionPatient[2]))
    return np.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in datasets])


def pydicom_int16(files: list[Path]) -> np.ndarray:
    """pydicom with the volume kept int16 and written in place."""
    datasets = sorted((pydicom.dcmread(path) for path in files), key=lambda d: float(d.ImagePositionPatient[2]))
    volume = np.empty((len(datasets), datasets[0].Rows, datasets[0].Columns), np.int16)
    for out, dataset in zip(volume, datasets, strict=True):
        out[...] = dataset.pixel_array
        out += np.int16(dataset.RescaleIntercept)
    return volume


def simpleitk(files: list[Path]) -> np.ndarray:
    """GDCM's series order and ITK's series reader."""
    import SimpleITK as sitk

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(files[0].parent)))
    return sitk.GetArrayFromImage(reader.Execute())


def dicomsdl(files: list[Path]) -> np.ndarray:
    """The fastest library."""
    import dicomsdl as sdl

    datasets = sorted((sdl.open(str(path)) for path in files), key=lambda d: d.ImagePositionPatient[2])
    volume = np.empty((len(datasets), datasets[0].Rows, datasets[0].Columns), np.int16)
    for out, dataset in zip(volume, datasets, strict=True):
        out[...] = dataset.pixelData(storedvalue=True)
        out += np.int16(dataset.RescaleIntercept)
    return volume


def main() -> None:
    """Run the contenders in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    peers: list[Callable[[list[Path]], np.ndarray]] = [dicomsdl, pydicom_int16, simpleitk, pydicom_float64]
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), options.slices)
        files = sorted(Path(folder).iterdir())
        expected = pydicom_int16(files)
        contenders = [read_bytes, ours]
        for peer in peers:
            try:
                np.testing.assert_array_equal(peer(files), expected)
                contenders.append(peer)
            except ImportError as error:
                print(f"left out: {error}")
        np.testing.assert_array_equal(ours(files), expected)
        seconds: dict[str, list[float]] = {contender.__name__: [] for contender in contenders}
        for _ in range(options.rounds):
            for contender in contenders:
                start = time.perf_counter()
                contender(files)
                seconds[contender.__name__].append(time.perf_counter() - start)
    rates = {name: options.slices / statistics.median(times) for name, times in seconds.items()}
    best = max(rate for name, rate in rates.items() if name not in ("read_bytes", "ours"))
    print("| contender | slices/s | x fastest peer |\n|---|---|---|")
    for name, rate in rates.items():
        print(f"| {name} | {rate:.0f} | {rate / best:.2f} |")


if __name__ == "__main__":
    main()
