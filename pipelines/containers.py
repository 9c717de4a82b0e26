"""The steps of a pipeline in containers of this machine (Docker or Podman): `hounsfield run --runner docker`.

A step runs as on a cluster: the image's own code, a numeric user, no capabilities, a read-only root with /tmp beside
it. It sees the data and files that the inputs name (read-only), `--out` and the checkpoints, each under its own path.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hounsfield.components.images import TRAINING_IMAGE, reference
from hounsfield.dicom.cases import read_cases
from hounsfield.dicom.pseudonyms import ENVIRONMENT as PSEUDONYM_KEY
from hounsfield.dicom.pseudonyms import key_file, load_pseudonyms
from hounsfield.errors import InputError
from hounsfield.pipelines import tasks
from hounsfield.pool import USER
from hounsfield.step import EXIT_OUT_OF_MEMORY

DEFAULT_SOCKET = "/var/run/docker.sock"
PODMAN_SOCKETS = ("/run/podman/podman.sock", "{XDG_RUNTIME_DIR}/podman/podman.sock")
PASSED = ("AWS_", "HOUNSFIELD_", "MLFLOW_", "OMP_NUM_THREADS")
SHARED_MEMORY = "2g"
KILLED = 137
RUN_LABEL = "hounsfield.run"
WRITTEN = ("artifacts", "checkpoints", "mlartifacts", "*mlflow.db*")
"""What the steps write below `--out`."""


def find_engine() -> str:
    """Address of the container engine: DOCKER_HOST, Docker's socket or Podman's, whichever is there first."""
    if given := os.environ.get("DOCKER_HOST"):
        return given
    runtime = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    sockets = [DEFAULT_SOCKET, *(path.format(XDG_RUNTIME_DIR=runtime) for path in PODMAN_SOCKETS)]
    return f"unix://{next((path for path in sockets if Path(path).exists()), DEFAULT_SOCKET)}"


def prepare(pipeline: Callable[..., Any], registry: str) -> str:
    """Check that an engine answers and has the images of `pipeline`, pulling what is only in `registry`.

    Returns:
        The engine's address, for DOCKER_HOST.

    Raises:
        InputError: no engine answers, or an image is neither here nor in the registry.
    """
    import docker
    from docker.errors import DockerException, ImageNotFound

    address = find_engine()
    try:
        client = docker.DockerClient(base_url=address)
        client.ping()
    except DockerException as error:
        raise InputError(
            f"no container engine answers at {address}: start Docker, or `podman system service` and set DOCKER_HOST "
            f"to its socket ({_first_line(error)})"
        ) from error
    executors = pipeline.pipeline_spec.deployment_spec["executors"]  # type: ignore[attr-defined]
    for image in sorted({reference(executor["container"]["image"], registry) for executor in executors.values()}):
        try:
            client.images.get(image)
        except ImageNotFound:
            if not registry:
                raise InputError(
                    f"the image {image} is not on this machine: run `make images`, or name the registry that has it "
                    "by --registry"
                ) from None
            print(f"  pulling {image}", flush=True)
            try:
                client.images.pull(image)
            except DockerException as error:
                raise InputError(
                    f"the image {image} is neither on this machine nor can it be pulled: check --registry and log in "
                    f"to it ({_first_line(error)})"
                ) from error
    client.close()
    return address


def docker_runner(inputs: Mapping[str, Any], out: Path, registry: str) -> Any:
    """The `kfp.local.DockerRunner` for a run with these pipeline inputs, whose containers are followed by `tasks`.

    Raises:
        InputError: the pseudonym key is needed and cannot be read or made.
    """
    import docker
    from docker.types import Mount
    from kfp import local
    from kfp.local import docker_task_handler

    environment = {name: value for name, value in os.environ.items() if name.startswith(PASSED)}
    if PSEUDONYM_KEY not in environment:
        load_pseudonyms()
        environment[PSEUDONYM_KEY] = key_file().read_text().strip()
    texts = [text for value in [*inputs.values(), *environment.values()] for text in _texts(value)]
    scratch = Path(tempfile.gettempdir())
    writable = _writable(inputs, out)
    readable = _outermost(_readable(inputs, texts) - {scratch, *writable})
    client = docker.from_env()
    info = client.info()
    client.close()
    new = [folder for folder in (out, *writable) if not folder.exists()]
    for folder in new:
        folder.mkdir(parents=True, exist_ok=True)
    user = _user(info)
    if os.getuid() == 0 and user == f"{USER}:{USER}":
        written = [top for name in WRITTEN for top in out.glob(name)]
        for path in (scratch, out, *new, *written, *(path for top in written for path in top.rglob("*"))):
            os.chown(path, USER, USER, follow_symlinks=False)
    docker_task_handler.run_docker_container = partial(
        run_container, registry=registry, gpus="nvidia" in (info.get("Runtimes") or {})
    )
    return local.DockerRunner(
        environment=environment,
        mounts=[
            Mount("/tmp", str(scratch), type="bind"),
            *(Mount(str(path), str(path), type="bind", read_only=True) for path in readable),
            *(Mount(str(path), str(path), type="bind") for path in _outermost({out, *writable})),
        ],
        user=user,
        network_mode="host" if any(_remote(text) for text in texts) else "none",
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges", "label=disable"],
        shm_size=SHARED_MEMORY,
        labels={RUN_LABEL: str(os.getpid())},
    )


def run_container(
    client: Any, image: str, command: list[str], volumes: dict[str, Any], *, registry: str, gpus: bool, **options: Any
) -> int:
    """Run a task's container to its end, pass on its lines, remove it and return its exit code.

    Takes the place of `kfp.local.docker_task_handler.run_docker_container`, which lets the engine remove the
    container before its exit code is read: a failed task could count as done (kubeflow/pipelines issue 13332).
    """
    import docker

    if gpus and image == TRAINING_IMAGE:
        options["device_requests"] = [docker.types.DeviceRequest(count=-1, capabilities=[["gpu"]])]
    options |= {"image": reference(image, registry), "command": command, "volumes": volumes}
    environment = dict(options.pop("environment", {}))
    return tasks.follow(command, environment, lambda given: Container(client, options | {"environment": given}))


class Container:
    """A task as a container."""

    def __init__(self, client: Any, options: dict[str, Any]) -> None:
        from docker.errors import DockerException

        try:
            self._container = client.containers.create(**options)
            try:
                self._container.start()
            except BaseException:
                self.close()
                raise
        except DockerException as error:
            raise InputError(f"the container engine does not run {options['image']}: {_first_line(error)}") from error

    def lines(self) -> Iterator[str]:
        """What it prints; at last a sentence if it was killed.

        Raises:
            InputError: the engine no longer answers.
        """
        from docker.errors import DockerException
        from urllib3.exceptions import HTTPError

        rest = b""
        try:
            for chunk in self._container.logs(stream=True, follow=True):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line.decode(errors="replace") for line in lines)
        except (DockerException, HTTPError, OSError) as error:
            raise InputError(f"the container engine no longer answers: start it and run again ({error})") from error
        if rest:
            yield rest.decode(errors="replace")
        if self._exit_code() == KILLED:
            yield (
                "error: the container was killed, as happens when memory does not suffice: "
                "give the container engine more memory or lower batch_size"
            )

    def wait(self) -> int:
        """Its exit code; that of OutOfMemory if it was killed."""
        code = self._exit_code()
        return EXIT_OUT_OF_MEMORY if code == KILLED else code

    def _exit_code(self) -> int:
        return int(self._container.wait()["StatusCode"])

    def terminate(self) -> None:
        """Ask its processes to end: the first one, KFP's shell, passes no signal on and ends with what it started."""
        from docker.errors import DockerException

        with suppress(DockerException):
            self._container.exec_run(["sh", "-c", "kill -TERM -1"])

    def close(self) -> None:
        from docker.errors import NotFound

        with suppress(NotFound):
            self._container.remove(force=True)


def remove_leftovers() -> None:
    """Remove the containers that this process created and did not live to follow."""
    import docker

    client = docker.from_env()
    for container in client.containers.list(all=True, filters={"label": f"{RUN_LABEL}={os.getpid()}"}):
        container.remove(force=True)


def _user(info: Mapping[str, Any]) -> str:
    """User and group of the containers: the caller's, so that outputs are the caller's; never root of this machine."""
    if any("rootless" in option for option in info.get("SecurityOptions") or ()):
        return "0:0"  # root of the engine's own user namespace is the caller
    return f"{os.getuid()}:{os.getgid()}" if os.getuid() else f"{USER}:{USER}"


def _texts(value: Any) -> list[str]:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else []


def _remote(text: str) -> bool:
    return urlsplit(text).scheme not in ("", "file", "sqlite") and "://" in text


def _readable(inputs: Mapping[str, Any], texts: list[str]) -> set[Path]:
    """Existing files and folders that the texts name, and those of the cases file."""
    found = {Path(text.removeprefix("file://")) for text in texts if text.startswith(("/", "file:///"))}
    if inputs.get("cases"):
        cases = Path(inputs["cases"])
        rows = read_cases(cases)
        named = [path for row in rows for path in (row.image, row.label) if path is not None]
        found |= {cases.parent, *(path if path.is_dir() else path.parent for path in named)}
    return {Path(os.path.normpath(path)) for path in found if path.exists()} - {Path("/")}


def _writable(inputs: Mapping[str, Any], out: Path) -> set[Path]:
    """Folders that the steps write to: artifacts, local checkpoints, the folder of MLflow's database."""
    folders = {out / "artifacts"}
    checkpoints, tracking = str(inputs.get("checkpoints", "")), str(inputs.get("tracking_uri", ""))
    if checkpoints and not _remote(checkpoints):
        folders.add(Path(checkpoints))
    if tracking.startswith("sqlite:///"):
        folders.add(Path(tracking.removeprefix("sqlite:///")).parent)
    return folders


def _outermost(paths: set[Path]) -> list[Path]:
    """The paths that are in no other of them."""
    return sorted(path for path in paths if not any(parent in paths for parent in path.parents))


def _first_line(error: Exception) -> str:
    return str(getattr(error, "explanation", None) or error).strip().splitlines()[0]
