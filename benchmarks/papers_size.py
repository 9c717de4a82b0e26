"""Every network at the papers' size: images per second in training and inference, by precision, layout, compilation.

python benchmarks/papers_size.py                                    # a CUDA GPU: the whole table
python benchmarks/papers_size.py --models unet --compile none       # part of it
python benchmarks/papers_size.py --device cpu --size 64 --l3-size 64 --batch 2 --l3-batch 2 --base-channels 8
python benchmarks/papers_size.py --train --set precision=bf16       # U-Net + CL on 80 chest phantoms of 512x512

Images and targets lie on the device: feeding them is not part of the figures (training_step.py measures that). A
training step is forward, the paper's loss, backward and Adam, as the training steps of the package do it. FLOPs are
those of convolutions and matrix products; their peak is the best of a few large square matrix products in the same
precision, measured here and now, and not the card's data sheet.
"""

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hounsfield import models
from hounsfield.losses import WeightedCrossEntropy, build_loss

SEGMENTATION = ("unet", "segnet", "enet")
NETWORKS = (*SEGMENTATION, "resnet50")
TITLES = {"unet": "U-Net", "segnet": "SegNet", "enet": "E-Net", "resnet50": "ResNet50"}
PRECISIONS = ("fp32", "tf32", "bf16")
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
PSEUDONYM_KEY = "synthetic patients have nothing to hide"
PLATEAU = 0.005
"""A training is at its plateau when the last quarter of its epochs gains no more than this."""
COLUMNS = (
    "| network | work | precision | layout | compiled | batch | images/s | ms a batch | TFLOP/s | of peak | GiB | |"
)


@dataclass
class Row:
    """One measurement; the figures are None where there is none, for the reason in `note`."""

    network: str
    work: str
    precision: str
    layout: str
    compiled: bool
    size: int
    batch: int
    images_per_second: float | None = None
    milliseconds: float | None = None
    tflops: float | None = None
    share_of_peak: float | None = None
    peak_memory_gib: float | None = None
    note: str = ""

    def __str__(self) -> str:
        known = "n/a" if self.images_per_second is None else f"{self.images_per_second:,.1f}"
        cells = [
            TITLES[self.network],
            self.work,
            self.precision,
            self.layout,
            "yes" if self.compiled else "no",
            self.batch,
            known,
            _number(self.milliseconds, ".1f"),
            _number(self.tflops, ".3g"),
            _number(self.share_of_peak, ".1%"),
            _number(self.peak_memory_gib, ".1f"),
            self.note,
        ]
        return f"| {' | '.join(map(str, cells))} |"


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether float32 matrix products and convolutions may run in TF32."""
    backends = torch.backends
    before = backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32
    backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32 = before


def seconds_of(step: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median seconds of `step` after up to three that do not count: by events on a GPU, by the clock on a CPU."""
    for _ in range(min(3, repeats)):
        step()
    if device.type != "cuda":
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        return statistics.median(times)
    torch.cuda.synchronize(device)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    events[0].record()
    for event in events[1:]:
        step()
        event.record()
    torch.cuda.synchronize(device)
    return statistics.median(a.elapsed_time(b) for a, b in pairwise(events)) / 1000


def peaks(device: torch.device, repeats: int) -> dict[str, float]:
    """FLOP/s of a large square matrix product by precision: the best over its sizes."""
    found: dict[str, float] = {}
    for precision in PRECISIONS:
        if skipped(precision, device):
            continue
        best = 0.0
        for side in (4096, 8192, 16384) if device.type == "cuda" else (512, 1024):
            dtype = torch.bfloat16 if precision == "bf16" else torch.float32
            a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
            with tf32(precision == "tf32"):
                best = max(best, 2 * side**3 / seconds_of(lambda a=a, b=b: a @ b, repeats, device))  # type: ignore[misc]
        found[precision] = best
    return found


def skipped(precision: str, device: torch.device) -> str:
    """Why a precision cannot be measured on a device; empty where it can."""
    if precision != "tf32":
        return ""
    if device.type != "cuda":
        return "TF32 is a format of CUDA GPUs: skipped on the CPU"
    return "" if torch.cuda.get_device_capability(device)[0] >= 8 else "this GPU has no TF32 (Ampere or newer has)"


def build(network: str, base_channels: int) -> nn.Module:
    options = {"base_channels": base_channels} if base_channels and network in SEGMENTATION else {}
    return models.build(network, **options)


@cache
def flops(network: str, base_channels: int, size: int) -> dict[str, int]:
    """Of one image: 2 for each multiply-add of convolutions and matrix products, without computing them."""
    with torch.device("meta"):
        module = build(network, base_channels)
    images = torch.empty(1, 1, size, size, device="meta")
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        module.eval()(images)
    with FlopCounterMode(display=False) as both:
        module(images).sum().backward()
    return {"inference": forward.get_total_flops(), "training": both.get_total_flops()}


def work_of(row: Row, base_channels: int, device: torch.device) -> Callable[[], object]:
    """The step to time, with its network, images and targets on the device."""
    torch.manual_seed(0)
    layout = LAYOUTS[row.layout]
    segments = row.network in SEGMENTATION
    module = build(row.network, base_channels).to(device).to(memory_format=layout)  # type: ignore[call-overload]
    images = torch.rand(row.batch, 1, row.size, row.size, device=device).to(memory_format=layout)
    target = (torch.rand(row.batch, *(images.shape[2:] if segments else ()), device=device) < 0.05).to(torch.uint8)
    network = torch.compile(module) if row.compiled else module
    bf16 = row.precision == "bf16"
    if row.work == "inference":
        module.eval()

        def infer() -> torch.Tensor:
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                output: torch.Tensor = network(images)
                return output

        return infer
    loss = (build_loss("cl") if segments else WeightedCrossEntropy()).to(device)
    optimiser = torch.optim.Adam(module.parameters(), fused=True)

    def train() -> None:
        optimiser.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            value = loss(network(images), target)
        value.backward()
        optimiser.step()

    return train


def measure(row: Row, arguments: argparse.Namespace, device: torch.device, peak: dict[str, float]) -> Row:
    """Fill in the figures of a row; a batch that does not fit is halved until one does, and the note says so."""
    row.note = skipped(row.precision, device)
    if row.note:
        return row
    wanted = row.batch
    while True:
        if row.compiled:
            torch.compiler.reset()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        try:
            with tf32(row.precision == "tf32"):
                seconds = seconds_of(work_of(row, arguments.base_channels, device), arguments.repeats, device)
            break
        except torch.OutOfMemoryError:
            if row.batch == 1:
                row.note = f"not even one image fits into {_memory(device)}"
                return row
            row.batch //= 2
            row.note = f"batch {wanted} does not fit into {_memory(device)}: halved to {row.batch}"
        except Exception as error:
            if not row.compiled:
                raise
            row.note = f"cannot be compiled: {type(error).__name__}: {str(error).strip().splitlines()[0][:80]}"
            return row
    rate = flops(row.network, arguments.base_channels, row.size)[row.work] * row.batch / seconds
    row.images_per_second, row.milliseconds = row.batch / seconds, 1000 * seconds
    row.tflops, row.share_of_peak = rate / 1e12, rate / peak[row.precision]
    if device.type == "cuda":
        row.peak_memory_gib = torch.cuda.max_memory_allocated(device) / 2**30
    return row


def combinations(arguments: argparse.Namespace) -> Iterator[Row]:
    """The rows to measure. Compiled ones are in channels-last alone unless all are asked for."""
    for network in arguments.models:
        segments = network in SEGMENTATION
        size, batch = (arguments.size, arguments.batch) if segments else (arguments.l3_size, arguments.l3_batch)
        for work in ("training", "inference"):
            for precision in PRECISIONS:
                for layout in LAYOUTS:
                    for compiled in (False, True):
                        wanted = arguments.compile == "all" or (arguments.compile == layout)
                        if not compiled or wanted:
                            yield Row(network, work, precision, layout, compiled, size, batch)


def train_to_plateau(arguments: argparse.Namespace) -> dict[str, object]:
    """Train U-Net + CL on chest phantoms through the steps of the package, and evaluate it on the unseen ones.

    What lies in the folder already (images, a killed training's checkpoints) is used again.
    """
    from hounsfield.components.dicom_ingest import config as ingest_config
    from hounsfield.components.dicom_ingest import run as ingest
    from hounsfield.components.evaluate_pr_ap import config as evaluate_config
    from hounsfield.components.evaluate_pr_ap import run as evaluate
    from hounsfield.components.train_unet import config as train_config
    from hounsfield.components.train_unet import run as train
    from hounsfield.components.window_convert import config as window_config
    from hounsfield.components.window_convert import run as window
    from hounsfield.data.model_store import read_history
    from hounsfield.experiments.printed import TABLE_1
    from hounsfield.phantom import write_cohort
    from hounsfield.step import parse
    from hounsfield.storage import is_artifact

    os.environ.setdefault("HOUNSFIELD_PSEUDONYM_KEY", PSEUDONYM_KEY)
    out = arguments.out.resolve() / f"{arguments.patients}x{arguments.size}"
    data, store, slices, model = (out / name for name in ("data", "store", "slices", "model"))
    if not is_artifact(slices):
        cases = data / "cases.csv"
        if not cases.is_file():
            cases = write_cohort("chest", data, arguments.patients, seed=1, size=arguments.size)
        ingest.run(ingest_config.Config(), [], str(cases), store)
        window.run(window_config.Config(size=arguments.size, test_fraction=0.25, val_fraction=0.1), store, slices)
    printed = next(row for row in TABLE_1 if row.run == "U-Net+CL")
    parameters = {"alpha": printed.alpha, "gamma": printed.gamma, "beta": printed.beta}
    given = dict(setting.split("=", 1) for setting in arguments.set)
    config = parse(
        train_config.Config,
        {
            "run_name": printed.run,
            "base_channels": arguments.base_channels,
            "epochs": arguments.epochs,
            "batch_size": arguments.batch,
            **parameters,
            **given,
        },
    )
    start = time.perf_counter()
    train.run(config, slices, model)
    seconds = time.perf_counter() - start
    metrics = evaluate.run(evaluate_config.Config(), slices, model, out / "evaluation")
    pooled, history = metrics["pooled"], read_history(model)
    names = ("f1", "precision", "recall", "average_precision")
    print(f"\n| run | patients tested | alpha | gamma | beta | F1 | precision | recall | AP |\n{'|---' * 9}|")
    ours = " | ".join(_number(pooled[name], ".4f") for name in names)
    values = " | ".join(parameters.values())
    print(f"| {printed.run}, phantoms {arguments.size}x{arguments.size} | {metrics['patients']} | {values} | {ours} |")
    paper = " | ".join(f"{float(text) / 100:.4f}" for text in (printed.f1, printed.precision, printed.recall))
    print(f"| {printed.run}, the paper | | {values} | {paper} | {printed.ap} |")
    reached = plateau([record.get("val_average_precision") for record in history])
    print(f"\n{reached}; {config.epochs} epochs in {seconds:.0f} s")
    return {
        "config": config.model_dump(),
        "seconds": seconds,
        "plateau": reached,
        "history": history,
        "row": {name: pooled[name] for name in names} | {"patients": metrics["patients"], **metrics["per_patient"]},
    }


def plateau(validation: Sequence[float | None]) -> str:
    """Whether the last quarter of the epochs still gained, from the average precision of validation by epoch."""
    known = [-1.0 if value is None else value for value in validation]
    best = max(known)
    if best < 0:
        return "plateau unknown: the training has no average precision on validation patients"
    before = max(known[: len(known) - len(known) // 4])
    first = next(epoch for epoch, value in enumerate(known, 1) if value >= best - PLATEAU)
    if best - before > PLATEAU:
        return f"no plateau yet: the last quarter of the epochs gained {best - before:.3f} in validation AP"
    return f"plateau from epoch {first}: within {PLATEAU} of the best validation AP {best:.3f}"


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def _memory(device: torch.device) -> str:
    if device.type != "cuda":
        return "memory"
    return f"{torch.cuda.get_device_properties(device).total_memory / 2**30:.0f} GiB"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--models", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--size", type=int, default=512, help="rows and columns for the segmentation networks")
    parser.add_argument("--batch", type=int, default=30)
    parser.add_argument("--l3-size", type=int, default=224, help="rows and columns for ResNet50")
    parser.add_argument("--l3-batch", type=int, default=32)
    parser.add_argument("--base-channels", type=int, default=0, help="of the segmentation networks; 0: as published")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--compile", choices=("channels-last", "all", "none"), default="channels-last")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/papers_size"), help="folder of the results; one for each part"
    )
    parser.add_argument("--train", action="store_true", help="train U-Net + CL on chest phantoms instead")
    parser.add_argument("--patients", type=int, default=80, help="with --train")
    parser.add_argument("--epochs", type=int, default=100, help="with --train")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="with --train: another parameter of train_unet"
    )
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None) -> None:
    """Print the table, or the table row of a training, and keep it as JSON; it is complete up to the last line."""
    arguments = parse(given)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA GPU here: nothing measured; --device cpu with a small --size and --batch tries the script")
        return
    device = torch.device(arguments.device)
    warnings.simplefilter("ignore")
    torch.backends.cudnn.benchmark = True
    arguments.out.mkdir(parents=True, exist_ok=True)
    described = {
        "date": datetime.now(UTC).date().isoformat(),
        "device": device_name(device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "arguments": {name: str(value) for name, value in vars(arguments).items()},
    }
    print(f"{described['date']}, {described['device']}, torch {described['torch']}", flush=True)
    if arguments.train:
        result = train_to_plateau(arguments)
        (arguments.out / "training.json").write_text(json.dumps(described | result, indent=2) + "\n")
        return
    peak = peaks(device, arguments.repeats)
    print("measured peak: " + ", ".join(f"{name} {value / 1e12:,.3g} TFLOP/s" for name, value in peak.items()))
    print(f"\n{COLUMNS}\n{'|---' * (COLUMNS.count('|') - 1)}|", flush=True)
    rows: list[Row] = []
    for row in combinations(arguments):
        rows.append(measure(row, arguments, device, peak))
        print(rows[-1], flush=True)
        content = described | {"peak_flops": peak, "rows": [asdict(row) for row in rows]}
        (arguments.out / "rates.json").write_text(json.dumps(content, indent=2) + "\n")
    print(f"\nresults: {arguments.out / 'rates.json'}")


if __name__ == "__main__":
    main()
