"""Random slices of a stored volume: the Arrow files of stores and slice sets against other formats.

python benchmarks/random_access.py [--slices 200] [--reads 400] [--rounds 5]
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import SimpleITK as sitk
from timing import interleaved, print_rates

from hounsfield.data.arrow import ArrowSlices, write_slices

OURS = "ours: Arrow, uncompressed, memory-mapped"


def main() -> None:
    """Write one volume in every format, then read the same random slices from each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--reads", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    smooth = rng.integers(-60, 60, (options.slices, 64, 64)).repeat(8, axis=1).repeat(8, axis=2)
    hu = (smooth + rng.normal(0, 12, smooth.shape)).astype(np.int16)
    order = rng.integers(0, len(hu), options.reads)
    out = np.empty(hu.shape[1:], np.int16)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        write_slices(folder / "a.arrow", {"hu": hu})
        np.save(folder / "a.npy", hu)
        flat = pa.FixedSizeListArray.from_arrays(hu.reshape(-1), hu[0].size)
        pq.write_table(pa.table({"hu": flat}), folder / "a.parquet", compression="zstd", row_group_size=1)
        sitk.WriteImage(sitk.GetImageFromArray(hu), str(folder / "a.nii.gz"))
        arrow, mapped = ArrowSlices(folder / "a.arrow", (512, 512)), np.load(folder / "a.npy", mmap_mode="r")
        parquet = pq.ParquetFile(folder / "a.parquet")
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(folder / "a.nii.gz"))

        def copy_from(source: object) -> None:
            for i in order:
                out[...] = source[i]  # type: ignore[index]

        def from_arrow() -> None:
            for i in order:
                out[...] = arrow.slice("hu", int(i))

        def from_parquet() -> None:
            for i in order:
                column = parquet.read_row_group(int(i)).column("hu").combine_chunks()
                out[...] = column.flatten().to_numpy().reshape(512, 512)

        def from_nifti() -> None:
            reader.SetExtractSize((512, 512, 1))
            reader.SetExtractIndex((0, 0, int(order[0])))
            out[...] = sitk.GetArrayViewFromImage(reader.Execute())[0]

        contenders = {
            "limit: copy from memory": lambda: copy_from(hu),
            OURS: from_arrow,
            "npy, memory-mapped": lambda: copy_from(mapped),
            "Parquet, zstd, a row group a slice": from_parquet,
        }
        medians = interleaved(contenders, options.rounds)
        nifti = interleaved({"NIfTI, gzip": from_nifti}, options.rounds)
        medians["NIfTI, gzip"] = nifti["NIfTI, gzip"] * options.reads
        print_rates("random slices of 512x512 int16", medians, options.reads, "slices", OURS)


if __name__ == "__main__":
    main()
