"""A whole series through the full-width U-Net: this package's prediction against MONAI's SliceInferer.

python benchmarks/inference.py [--slices 300] [--size 512] [--base-channels 64] [--batch 4]

HU in, mask out, the same weights and window in each. Every contender is a process of its own, for its peak of memory,
and they run in turns of 20 seconds (the others stopped), so that a machine whose speed drifts slows all alike. The
series is a chest phantom below 60 HU, with a block of 200 HU in a tenth of its slices. The weights are random but for
one channel, which carries the image through the first level to the last layer, so that the log-odds follow brightness
(about -4 and +4) and have the errors of all layers.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from hounsfield import models
from hounsfield.data.model_store import ModelCard, write_model
from hounsfield.evaluation.prediction import log_odds
from hounsfield.phantom.cohort import make_patient
from hounsfield.predict.model import load_predictor
from hounsfield.windowing import Window, window_for

TASK = "lung-tumour"
OURS = "ours, as it is used"
OURS_FP32 = "ours, fp32"
MONAI = "MONAI SliceInferer"
MONAI_BF16 = "MONAI SliceInferer, bf16 autocast"
CONTENDERS = (OURS, OURS_FP32, MONAI, MONAI_BF16)
TURN = 20.0
TISSUE, FINDING = 60, 200
"""HU."""
EVERY = 10
"""One slice in so many has a finding."""
SLOPE, ERRORS = 20.0, 0.2
"""Weight of the brightness in the last layer, and scale of its other weights."""


def main() -> None:
    """Make series and model, let the contenders take turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--base-channels", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        contend(options.contender, options.folder, options.batch)
        return
    with TemporaryDirectory(prefix="benchmark-inference-") as scratch:
        folder = Path(scratch)
        hu = series(options.slices, options.size)
        np.save(folder / "hu.npy", hu)
        write_network(folder / "model", options.size, options.base_channels)
        seconds = in_turns(folder, options.batch)
        masks = {name: np.load(folder / f"{name}.npy") for name in CONTENDERS}
        said = {name: json.loads((folder / f"{name}.json").read_text()) for name in CONTENDERS}
    expected = masks[MONAI]
    print(
        f"U-Net {options.base_channels}..{16 * options.base_channels}, {options.slices} slices of {options.size}x"
        f"{options.size}, {options.batch} at a time; {int(expected.sum()):,} pixels of foreground in "
        f"{int(expected.any(axis=(1, 2)).sum())} slices\n\n"
        "| contender | slices/s | x MONAI | peak GiB | pixels of the mask that differ | computed in |\n"
        "|---|---|---|---|---|---|"
    )
    for name in CONTENDERS:
        print(
            f"| {name} | {options.slices / seconds[name]:.2f} | {seconds[MONAI] / seconds[name]:.2f} | "
            f"{said[name]['peak'] / 2**30:.2f} | {int((masks[name] != expected).sum())} | {said[name]['computed']} |"
        )


def series(slices: int, size: int) -> np.ndarray:
    """The phantom in HU, (slices, size, size) int16; begun again where the chest is shorter."""
    scan, _ = make_patient("chest", 1, 0, size, slice_thickness=1.0)
    hu = np.minimum(np.resize(scan.hu, (slices, size, size)), TISSUE).astype(np.int16)
    hu[EVERY // 2 :: EVERY, size // 2 : size // 2 + size // 12, size // 3 : size // 3 + size // 10] = FINDING
    return hu


def write_network(directory: Path, size: int, base_channels: int) -> None:
    """The U-Net as a model directory."""
    torch.manual_seed(0)
    options = {"base_channels": base_channels}
    network = models.build("unet", **options)
    window = window_for(TASK, size=size)
    low, high = ((value - window.lower) / (window.upper - window.lower) for value in (TISSUE, FINDING))
    with torch.no_grad():
        for block in (network.down[0], network.merge[-1]):
            for layer in (block[0], block[2]):
                layer.weight[0] = 0
                layer.weight[0, 0, 1, 1] = 1
        network.head.weight[0] = 0
        network.head.weight[1] *= ERRORS
        network.head.weight[1, 0] = SLOPE
        network.head.bias[1] = -SLOPE * (low + high) / 2
    directory.mkdir()
    card = ModelCard(
        task=TASK,
        architecture="unet",
        architecture_options=options,
        parameters={},
        window=window.to_dict(),
        image_size=[size, size],
        classes=["background", "tumour"],
        threshold=0.5,
        dataset_hash="0" * 64,
        slice_set_hash="0" * 64,
        training_patients=0,
        parameter_count=models.parameter_count(network),
        precision="fp32",
        best_epoch=0,
        metrics={},
        code_version="benchmark",
    )
    write_model(directory, card, network.state_dict(), [])


def in_turns(folder: Path, batch: int) -> dict[str, float]:
    """Seconds that each contender ran."""
    command = [sys.executable, __file__, "--folder", str(folder), "--batch", str(batch), "--contender"]
    running = {}
    for name in CONTENDERS:
        # A session of its own: a stopped process in ours would have the kernel hang us up when our shell ends.
        process = subprocess.Popen(
            [*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise SystemExit(f"{name} did not start")
        process.send_signal(signal.SIGSTOP)
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        running[name] = process
    seconds = dict.fromkeys(CONTENDERS, 0.0)
    try:
        while running:
            for name, process in list(running.items()):
                start = time.perf_counter()
                process.send_signal(signal.SIGCONT)
                try:
                    code = process.wait(TURN)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGSTOP)
                else:
                    del running[name]
                    if code:
                        raise SystemExit(f"{name} ended with exit code {code}")
                seconds[name] += time.perf_counter() - start
                print(f"{name}: {seconds[name]:.0f} s", file=sys.stderr, flush=True)
    finally:
        for process in running.values():
            process.kill()
    return seconds


def contend(name: str, folder: Path, batch: int) -> None:
    """Predict the series as `name` does and write mask and figures; begins when a line comes on standard input."""
    hu = np.load(folder / "hu.npy")
    precision = "auto" if name == OURS else "fp32"
    predictor = load_predictor(TASK, folder / "model", precision=precision)
    cut = np.float32(log_odds(predictor.network.card.threshold))
    computed = "fp32"
    if name in (MONAI, MONAI_BF16):
        from monai.inferers import SliceInferer
    print("ready", flush=True)
    sys.stdin.readline()
    if name in (OURS, OURS_FP32):
        scores = predictor.scores(hu, batch)
        mask, computed = scores.log_odds >= cut, scores.computed
    else:
        network, bf16 = predictor.network, name == MONAI_BF16
        inferer = SliceInferer(
            roi_size=hu.shape[1:], sw_batch_size=batch, spatial_dim=0, device="cpu", sw_device=network.device
        )
        with torch.inference_mode(), torch.autocast(network.device.type, torch.bfloat16, enabled=bf16):
            images = Window(**network.card.window)(torch.from_numpy(hu))
            logits = inferer(images[None, None], network.module)[0].float()
            mask = (logits[1] - logits[0] >= float(cut)).numpy()
        computed = "bf16" if bf16 else "fp32"
    np.save(folder / f"{name}.npy", mask)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (folder / f"{name}.json").write_text(json.dumps({"peak": peak, "computed": computed}))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
