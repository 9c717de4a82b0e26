"""The examples of docs/using-models.md in a virtual environment made as the page says, with a registry and series."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dicom_factory as factory
import numpy as np
import requests
from markdown_it import MarkdownIt
from test_pyfunc import Registered

PAGE = Path(__file__).parents[1] / "docs" / "using-models.md"
EXAMPLES = {
    token.info.split()[-1]: token.content for token in MarkdownIt().parse(PAGE.read_text()) if token.type == "fence"
}
PORT = "5001"
"""The port in the page; the tests take a free one."""
SPACING = (2.5, 0.8, 0.8)
HALF_AIR = np.where(np.arange(32)[:, None] < 16, -1000, 400).astype(np.int16)
"""A slice that the small l3-slice model calls positive, unlike noise."""
SECONDS_TO_START = 120
WATCH = """
import os, sys

def watch(event, arguments):
    if event == "pickle.find_class":
        with open(os.environ["UNPICKLED"], "a") as file:
            print(*arguments[:2], file=file)

sys.addaudithook(watch)
"""
"""Run by every Python process at its start: notes each class that is unpickled."""
KEEP = """
import runpy, sys, numpy

numpy.save("kept.npy", runpy.run_path(sys.argv[1], run_name="__main__")[sys.argv[2]])
"""


class Clean:
    """A folder with the examples, a registry, two series, and a virtual environment made as the page says."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.registered = folder, Registered(folder)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = str(probe.getsockname()[1])
        self.write_examples(folder)
        self.hu = {"one": factory.phantom((7, 32, 32), 3), "two": factory.phantom((5, 32, 32), 4)}
        self.hu["one"][4:6] = HALF_AIR
        self.hu["one"][5] += np.random.default_rng(0).integers(0, 200, (32, 32), np.int16)
        for name, hu in self.hu.items():
            factory.write_series(folder / "scans" / name, hu, spacing=SPACING)
        self.unpickled = folder / "unpickled"
        (folder / "watch").mkdir()
        (folder / "watch" / "sitecustomize.py").write_text(WATCH)
        foreign = ("MLFLOW_", "PYTHON", "VIRTUAL_ENV", "HOUNSFIELD_", "AWS_")
        self.environment = {name: text for name, text in os.environ.items() if not name.startswith(foreign)}
        self.environment |= {"MLFLOW_TRACKING_URI": self.registered.uri}
        self.environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        installed = self.call("bash", "-e", "install.sh", seconds=1800)
        assert installed.returncode == 0, installed.stdout[-2000:] + installed.stderr[-2000:]
        self.environment |= {
            "PATH": os.pathsep.join([str(folder / "model-env" / "bin"), os.environ["PATH"]]),
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
            "PYTHONPATH": str(folder / "watch"),
            "UNPICKLED": str(self.unpickled),
        }

    def write_examples(self, folder: Path) -> None:
        for name, content in EXAMPLES.items():
            (folder / name).write_text(content.replace(PORT, self.port))

    def call(
        self, *command: str, place: str = ".", seconds: int = 300, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """A finished process; with `place`, a folder below this one, as its current folder."""
        return subprocess.run(
            command,
            cwd=self.folder / place,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    def array(self, example: str, name: str) -> tuple[np.ndarray, str]:
        """The array `name` that an example leaves behind, and what it printed; no class was unpickled meanwhile."""
        done = self.call("python", "-c", KEEP, example, name)
        assert done.returncode == 0, done.stderr
        assert not self.unpickled.exists(), self.unpickled.read_text()
        return np.load(self.folder / "kept.npy"), done.stdout

    def volume_ml(self, series: str) -> float:
        """Tumour volume of a series by the training code."""
        probability = self.registered.trained("lung-tumour", self.hu[series].astype(np.float32))
        return float((probability >= 0.5).sum() * np.prod(SPACING) / 1000)


@contextmanager
def serving(clean: Clean) -> Iterator[str]:
    """Address of the service of the page, started as it says, ended with its children."""
    log = clean.folder / "serve.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            ["bash", "serve.sh"],
            cwd=clean.folder,
            env=clean.environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    url, until = f"http://127.0.0.1:{clean.port}", time.monotonic() + SECONDS_TO_START
    try:
        while not answers(f"{url}/ping"):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the service did not start: {log.read_text()}")
            time.sleep(0.3)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.RequestException:
        return False
