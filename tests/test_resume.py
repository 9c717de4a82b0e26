"""Training that is killed, stopped or fails: it resumes bit by bit, and ends with a code that says what happened."""

import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from slice_sets import make_slices

from hounsfield.components.train_l3.config import Config as L3Config
from hounsfield.components.train_l3.run import run as run_l3
from hounsfield.components.train_unet.__main__ import Arguments, work
from hounsfield.components.train_unet.config import Config as UNetConfig
from hounsfield.components.train_unet.run import run as run_unet
from hounsfield.data.model_store import read_card, read_history
from hounsfield.data.slice_set import DETECTION, SEGMENTATION, SliceSet
from hounsfield.errors import OutOfMemory, Preempted
from hounsfield.models.unet import UNet
from hounsfield.step import command_line
from hounsfield.training import fit, loop
from hounsfield.training.batches import Batches, Sampling
from hounsfield.training.checkpoints import Checkpoints

SMALL = {"base_channels": 4, "depth": 2, "batch_size": 5, "learning_rate": 0.01, "precision": "fp32", "epochs": 2}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "unet": (
        SEGMENTATION,
        SMALL
        | {
            "batch_norm": True,
            "augment": True,
            "learning_rate_schedule": "one-cycle",
            "negatives_per_positive": 1.5,
        },
    ),
    "enet": (SEGMENTATION, SMALL | {"architecture": "enet", "augment": True, "batch_size": 9}),
    "l3": (
        DETECTION,
        {
            "architecture": "resnet18", "base_channels": 4, "epochs": 2, "batch_size": 12, "oversampling_rate": 0.25,
            "class_weight": 0.5, "gradient_threshold_method": "l2norm", "l2": 1e-3, "precision": "fp32",
            "learning_rate_schedule": "one-cycle",
        },
    ),
}  # fmt: skip


class Killed(BaseException):
    """Ends a training as nothing in it expects."""


def train(case: str, slices: Path, model: Path, **changes: Any) -> None:
    task, values = CASES[case]
    if task == DETECTION:
        run_l3(L3Config(**(values | changes)), slices, model)
    else:
        run_unet(UNetConfig(**(values | changes)), slices, model)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def slices(case: str, tmp_path: Path) -> Path:
    return make_slices(tmp_path / "slices", CASES[case][0])


@pytest.fixture
def tumours(tmp_path: Path) -> Path:
    return make_slices(tmp_path / "tumours", SEGMENTATION)


def assert_same_model(one: Path, other: Path) -> None:
    a, b = load_file(one / "weights.safetensors"), load_file(other / "weights.safetensors")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert read_history(one) == read_history(other)
    assert read_card(one) == read_card(other)


def saved(folder: Path) -> dict[str, Any]:
    [path] = folder.glob("*.checkpoints/*/last.ckpt")
    state: dict[str, Any] = torch.load(path, weights_only=True)["trainee"]
    return state


class TestEveryStep:
    def test_training_resumes_from_each_of_its_checkpoints(
        self, case: str, slices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        train(case, slices, tmp_path / "whole")
        monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
        write, places = loop.write_checkpoint, []
        for number in range(1, 100):
            written = 0

            def write_and_die(path: Path, state: dict[str, Any], number: int = number) -> None:
                nonlocal written
                write(path, state)
                written += 1
                if written == number:
                    places.append((state["trainee"]["epoch"], state["trainee"]["step"]))
                    raise Killed

            monkeypatch.setattr(loop, "write_checkpoint", write_and_die)
            try:
                train(case, slices, tmp_path / "resumed")
                break
            except Killed:
                assert not (tmp_path / "resumed").exists()
            monkeypatch.setattr(loop, "write_checkpoint", write)
            train(case, slices, tmp_path / "resumed")
            assert_same_model(tmp_path / "resumed", tmp_path / "whole")
            (tmp_path / "resumed").rename(tmp_path / f"resumed-{number}")
        steps = max(step for _, step in places)
        assert steps >= 2
        one_epoch = [(0, step) for step in range(1, steps + 1)] + [(1, 0)]
        assert places == one_epoch + [(epoch + 1, step) for epoch, step in one_epoch]

    def test_epochs_of_a_second_are_saved_at_their_end_alone(
        self, tumours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        places, write = [], loop.write_checkpoint

        def record(path: Path, state: dict[str, Any]) -> None:
            places.append((state["trainee"]["epoch"], state["trainee"]["step"]))
            write(path, state)

        monkeypatch.setattr(loop, "write_checkpoint", record)
        train("unet", tumours, tmp_path / "model")
        assert places == [(1, 0), (2, 0)]

    def test_batches_before_the_first_wanted_one_are_not_read(
        self, tumours: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sampling = Sampling(augment=True)
        rows = SliceSet(tumours).rows("train")
        whole = [(i.clone(), m.clone()) for i, m in Batches(tumours, rows, 4, seed=1, sampling=sampling)]
        read: list[int] = []
        gather = SliceSet.gather
        monkeypatch.setattr(SliceSet, "gather", lambda self, *args: (read.extend(args[1]), gather(self, *args))[1])
        batches = Batches(tumours, rows, 4, seed=1, sampling=sampling)
        rest = [(i.clone(), m.clone()) for i, m in batches.since(3)]
        assert len(whole) == len(rest) + 3
        for one, other in zip(whole[3:], rest, strict=True):
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])
        assert set(read) == set(batches.order()[0][sum(len(i) for i, _ in whole[:3]) :])
        assert list(batches.since(len(whole))) == []


DRIVER = """
import os, signal, sys, threading
from hounsfield.step import command_line
from hounsfield.training import loop
if sys.argv.pop(1) == "l3":
    from hounsfield.components.train_l3.__main__ import Arguments, work
else:
    from hounsfield.components.train_unet.__main__ import Arguments, work
loop.SECONDS_BETWEEN_CHECKPOINTS = float(sys.argv.pop(1))
name, number, delay = sys.argv.pop(1), int(sys.argv.pop(1)), float(sys.argv.pop(1))
step = loop._Loop._step
def step_and_die(self, images, target):
    global number
    number -= 1
    if number == 0:
        threading.Timer(delay, os.kill, (os.getpid(), getattr(signal, name))).start()
    step(self, images, target)
loop._Loop._step = step_and_die
command_line(Arguments, work, "driver")
"""


def arguments(slices: Path, model: Path, values: dict[str, Any]) -> list[str]:
    """The command line of a training step."""
    values = values | {"slices": slices, "out": model}
    flags = {name: "--" + name.replace("_", "-") for name in values}
    return [flags[name] if value is True else f"{flags[name]}={value}" for name, value in values.items()]


def drive(
    folder: Path,
    case: str,
    slices: Path,
    name: str = "SIGKILL",
    step: int = 0,
    delay: float = 0.0,
    seconds: float = 60.0,
    **changes: Any,
) -> subprocess.CompletedProcess[str]:
    """Train in a process of its own that sends itself signal `name` `delay` seconds after it began its `step`-th step.

    `seconds` lie between checkpoints.
    """
    script = folder / "driver.py"
    script.write_text(DRIVER)
    command = [sys.executable, str(script), case, str(seconds), name, str(step), str(delay)]
    command += arguments(slices, folder / "killed", CASES[case][1] | changes)
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


class TestKill:
    @pytest.mark.slow
    def test_training_killed_again_and_again_ends_with_the_same_weights(
        self, case: str, slices: Path, tmp_path: Path
    ) -> None:
        seed = int(os.environ.get("HOUNSFIELD_TEST_SEED", random.SystemRandom().randrange(2**32)))
        print(f"HOUNSFIELD_TEST_SEED={seed}")
        draw = random.Random(seed)
        train(case, slices, tmp_path / "whole", epochs=10)
        ended = drive(tmp_path, case, slices, "SIGKILL", 1, 0.0, epochs=10)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        assert not list(tmp_path.rglob("last.ckpt"))
        for _ in range(2 if case == "unet" else 1):
            step, delay = draw.randint(2, 10), draw.uniform(0, 0.02)
            print(f"SIGKILL {delay:.4f} s after the start of step {step}")
            ended = drive(tmp_path, case, slices, "SIGKILL", step, delay, seconds=0.02, epochs=10)
            assert ended.returncode == -signal.SIGKILL, ended.stderr
            assert not (tmp_path / "killed").exists()
        ended = drive(tmp_path, case, slices, epochs=10)
        assert ended.returncode == 0, ended.stderr
        assert_same_model(tmp_path / "killed", tmp_path / "whole")
        left = {path.name for path in tmp_path.iterdir()}
        assert left == {"slices", "whole", "killed", "driver.py"}


class TestPreemption:
    @pytest.mark.slow
    def test_sigterm_ends_with_its_own_code_and_sentence(self, tmp_path: Path) -> None:
        slices = make_slices(tmp_path / "slices", SEGMENTATION)
        ended = drive(tmp_path, "unet", slices, "SIGTERM", 3)
        assert ended.returncode == 75
        assert ended.stderr == "preempted: checkpoint saved, run the same command again to continue\n"
        assert not (tmp_path / "killed").exists()
        ended = drive(tmp_path, "unet", slices)
        assert ended.returncode == 0, ended.stderr
        train("unet", slices, tmp_path / "whole")
        assert_same_model(tmp_path / "killed", tmp_path / "whole")

    @pytest.mark.parametrize(("place", "expected"), [("_step", (0, 1)), ("_score", (0, "all"))])
    def test_stops_after_the_current_step_or_batch_of_validation(
        self, case: str, slices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, expected: Any
    ) -> None:
        def before(*_: Any) -> None:
            pytest.fail("the handler from before was called while training ran")

        original = getattr(loop._Loop, place)
        steps: list[int] = []

        def signalled(self: Any, *args: Any) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            original(self, *args)
            steps.append(len(self.training))

        previous = signal.signal(signal.SIGTERM, before)
        try:
            monkeypatch.setattr(loop._Loop, place, signalled)
            with pytest.raises(Preempted):
                train(case, slices, tmp_path / "stopped")
            assert signal.getsignal(signal.SIGTERM) is before
        finally:
            signal.signal(signal.SIGTERM, previous)
        assert len(steps) == 1
        state = saved(tmp_path)
        assert (state["epoch"], state["step"]) == (0, steps[0] if expected[1] == "all" else 1)
        monkeypatch.setattr(loop._Loop, place, original)
        train(case, slices, tmp_path / "stopped")
        train(case, slices, tmp_path / "whole")
        assert_same_model(tmp_path / "stopped", tmp_path / "whole")


class TestExitCodes:
    def end(self, capsys: pytest.CaptureFixture[str], slices: Path, **changes: Any) -> tuple[Any, str]:
        with pytest.raises(SystemExit) as raised:
            command_line(Arguments, work, "train-unet", arguments(slices, slices.parent / "model", SMALL | changes))
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return raised.value.code, error

    def test_a_loss_that_is_not_a_number(
        self, tumours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        code, error = self.end(capsys, tumours, learning_rate=1e30)
        assert code == 3
        assert re.match(r"error: the loss became \S+ in epoch 1, step \d: use a lower learning rate", error)

    def test_a_last_step_that_leaves_no_numbers(
        self, tumours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        code, error = self.end(capsys, tumours, learning_rate=1e39, batch_size=24, epochs=1, refit=True)
        assert code == 3
        assert "a weight became NaN or infinite in epoch 1: use a lower learning rate" in error

    @pytest.mark.parametrize("kind", ["cuda", "allocator", "numpy"])
    def test_memory_that_does_not_suffice(
        self,
        kind: str,
        tumours: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        forward = UNet.forward

        def exhausting(self: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
            if images.device.type == "meta":
                return forward(self, images)  # type: ignore[arg-type]
            match kind:
                case "cuda":
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation")
                case "allocator":
                    torch.empty(1 << 50)
                case "numpy":
                    np.empty(1 << 55)
            raise AssertionError("there was memory enough")

        monkeypatch.setattr(UNet, "forward", exhausting)
        code, error = self.end(capsys, tumours)
        assert code == 4
        assert re.match(
            r"error: memory does not suffice for batches of 5 images of 16x16 .*lower the batch size", error
        )
        assert not (tmp_path / "model").exists()

    def test_other_failures_of_torch_are_not_taken_for_lack_of_memory(
        self, tumours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: Any) -> None:
            raise RuntimeError("shapes do not match")

        monkeypatch.setattr(loop._Loop, "_step", broken)
        with pytest.raises(RuntimeError, match="shapes"):
            train("unet", tumours, tmp_path / "model")

    def test_bad_input(self, tumours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.end(capsys, tumours, depth=6)[0] == 2
        assert self.end(capsys, tmp_path / "nothing")[0] == 2
        assert self.end(capsys, tumours, fold=7)[0] == 2
        code, error = self.end(capsys, tumours, tuned='{"alpha": 2}')
        assert code == 2
        assert "--alpha" in error

    def test_processes_of_a_training_report_by_their_kind(self) -> None:
        from torch.multiprocessing.spawn import ProcessRaisedException

        text = "\n\n-- Process 1 terminated\nTraceback:\n  ...\nhounsfield.errors.OutOfMemory: lower the batch size\n"
        error = fit._failure_of_a_process(ProcessRaisedException(text, 1, 2))
        assert isinstance(error, OutOfMemory)
        assert str(error) == "lower the batch size"
        other = fit._failure_of_a_process(ProcessRaisedException("...\nValueError: what", 1, 2))
        assert not isinstance(other, OutOfMemory)
        assert "ValueError: what" in str(other)


class TestCheckpointFolder:
    def test_checkpoints_of_another_configuration_or_data_are_not_used(self, tumours: Path, tmp_path: Path) -> None:
        config = UNetConfig(**SMALL)
        slices = SliceSet(tumours)
        other = SliceSet(make_slices(tmp_path / "other", SEGMENTATION, name="b"))
        folders = {
            Checkpoints.of(tmp_path, config.model_dump(), slices),
            Checkpoints.of(tmp_path, config.model_copy(update={"epochs": 3}).model_dump(), slices),
            Checkpoints.of(tmp_path, config.model_dump(), other),
        }
        assert len(folders) == 3

    def test_probed_precision_is_kept_for_the_resumption(
        self, tumours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = UNetConfig(**(SMALL | {"precision": "auto", "epochs": 1}))
        folder = Checkpoints.of(tmp_path / "checkpoints", config.model_dump(), SliceSet(tumours)).folder
        folder.mkdir(parents=True)
        (folder / "precision.json").write_text(json.dumps({"precision": "bf16"}))
        monkeypatch.setattr(fit, "faster_precision", lambda *_: pytest.fail("probed again"))
        run_unet(config, tumours, tmp_path / "model", tmp_path / "checkpoints")
        assert read_card(tmp_path / "model").precision == "bf16"
