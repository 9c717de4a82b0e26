"""Katib Experiments: schemas, admission rules, pod security, the trial's shell, metrics, and the rendered manifests."""

import itertools
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from katib_admission import refusals
from katib_api import DEFAULT_FILTER, collected, filled, wrapped
from katib_trials import configured
from kubernetes_schemas import errors_of_experiment

from hounsfield.components.tune.config import Config
from hounsfield.components.tune.on_katib import MODULES, not_default
from hounsfield.components.tune.render import Arguments, rendered
from hounsfield.components.tune.run import training_config
from hounsfield.errors import InputError
from hounsfield.katib.experiment import (
    LOG,
    METRICS_FORMAT,
    TERMINATION_LOG,
    Budget,
    Place,
    Training,
    canonical,
    repeats,
    search,
)
from hounsfield.pool import POOLS, Pool
from hounsfield.search.objective import OWN, Objective
from hounsfield.search.space import SPACES, Space

ROOT = Path(__file__).parents[1]
ODD = {
    "lung-tumour": {"run_name": 'it\'s "odd" $HOME `x` é', "epochs": "3", "augment": "True", "prior": 0.0},
    "l3-slice": {"initial_weights": "s3://w/ a b&c;d", "learning_rate": 1e-5, "precision": "bf16"},
}
LONG = Pool(
    name="h100", accelerator="amd.com/gpu", count=8, shm="16384Mi", memory="1Ti", cpu="900m",
    node_selector={"a/b": "c", "d": "true"},
)  # fmt: skip


def training(task: str, **fields: Any) -> Training:
    config = training_config(Config(task=task), json.dumps(ODD[task] | fields))
    objective = Objective(OWN[task])
    return Training(task, MODULES[task], f"s3://bucket/run 1/{task}", "hash", objective, not_default(config))


def every_experiment() -> list[Any]:
    """Both tasks with every space, algorithm and pool, and with repeats."""
    made = []
    pools = [*POOLS.values(), LONG]
    for space, algorithm, pool in itertools.product(SPACES, ("bayesianoptimization", "tpe", "random"), pools):
        place = Place("hounsfield", "registry.example.org:5000/team/training:1", pool, 0.5, "pull")
        for budget in (Budget(1, 4), Budget(30, 3), Budget(5, 5, failures=5)):
            fields = training(space.task)
            experiment = search(fields, space, algorithm, 7, budget, place)  # type: ignore[arg-type]
            made.append(pytest.param(experiment, id=f"{space.name}-{algorithm}-{pool.name}-{budget.trials}"))
        seeds = repeats(training(space.task), [1, 2, 3], Budget(3, 2, failures=3), place)
        made.append(pytest.param(seeds, id=f"{space.name}-{algorithm}-{pool.name}-repeats"))
    return made


EVERY = every_experiment()
FEW = EVERY[:: len(EVERY) // 8 | 1]


def job(experiment: dict[str, Any]) -> dict[str, Any]:
    """The Job of a trial, with values in place of parameters and the name that Katib gives it."""
    parameters = experiment["spec"]["parameters"]
    values = {item["name"]: item["feasibleSpace"].get("min") or item["feasibleSpace"]["list"][0] for item in parameters}
    made = filled(experiment["spec"]["trialTemplate"], values)
    return made | {"metadata": {"name": f"{experiment['metadata']['name']}-abcdefgh", "namespace": "hounsfield"}}


@pytest.mark.parametrize("experiment", EVERY)
def test_katib_admits_every_experiment(experiment: dict[str, Any]) -> None:
    assert refusals(experiment) == []
    json.dumps(experiment)


@pytest.mark.parametrize("experiment", FEW)
def test_experiments_are_valid_by_katibs_openapi_description(experiment: dict[str, Any], crds: Path) -> None:
    assert errors_of_experiment(experiment, crds) == []


@pytest.mark.parametrize("experiment", FEW)
def test_jobs_of_trials_are_valid_kubernetes_resources(experiment: dict[str, Any]) -> None:
    for version in ("1.32", "1.36"):
        kubernetes_validate.validate(job(experiment), version, strict=True)


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        (lambda e: e["metadata"].update(name="x" * 41), "name"),
        (lambda e: e["metadata"].update(name="L3"), "name"),
        (lambda e: e["spec"].update(parallelTrialCount=31), "parallelTrialCount above"),
        (lambda e: e["spec"].update(maxFailedTrialCount=31), "maxFailedTrialCount"),
        (lambda e: e["spec"]["objective"]["additionalMetricNames"].append("val_average_precision"), "objective is"),
        (lambda e: e["spec"]["algorithm"]["algorithmSettings"].append({"name": "seed", "value": "1"}), "setting seed"),
        (lambda e: e["spec"]["parameters"][0]["feasibleSpace"].update(min="0"), "loss: a list"),
        (lambda e: e["spec"]["parameters"][1]["feasibleSpace"].pop("max"), "alpha: min and max"),
        (lambda e: e["spec"]["parameters"].pop(), "reference beta does not exist"),
        (lambda e: e["spec"]["trialTemplate"]["trialParameters"].pop(), "beta} is not in trialParameters"),
        (lambda e: e["spec"]["trialTemplate"]["trialSpec"].update(metadata={"name": "x"}), "must be omitted"),
        (lambda e: pod(e).update(nodeSelector={}), "unable to convert"),
        (lambda e: pod(e)["volumes"][1]["emptyDir"].update(sizeLimit="8192Mi"), "sizeLimit"),
        (lambda e: e["spec"]["metricsCollectorSpec"]["source"]["filter"].update(metricsFormat=["(a)=b"]), "two groups"),
    ],
)
def test_admission_rules_refuse_what_katib_refuses(change: Any, refused: str) -> None:
    experiment = search(
        training("lung-tumour"), SPACES[0], "tpe", 0, Budget(30, 3), Place("hounsfield", "i:1", POOLS["nvidia"])
    )
    change(experiment)
    assert any(refused in text for text in refusals(experiment))


def pod(experiment: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = experiment["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("experiment", FEW)
def test_trials_meet_pod_security_restricted(experiment: dict[str, Any]) -> None:
    """The rules of https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted."""
    spec = pod(experiment)
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    assert all(volume.keys() - {"name"} <= allowed for volume in spec["volumes"])
    for container in spec["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        assert not context.get("privileged")
        assert not any("hostPort" in port for port in container.get("ports", []))
    assert spec["automountServiceAccountToken"] is False
    assert {mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]} == {"/tmp", "/dev/shm"}


def test_trials_go_to_the_pool_with_secrets_by_reference() -> None:
    place = Place("hounsfield", "i:1", POOLS["gke"], 2, "registry")
    spec = pod(search(training("l3-slice"), SPACES[1], "random", 0, Budget(2), place))
    container = spec["containers"][0]
    assert spec["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert all("value" not in variable for variable in container["env"])
    shm = next(volume for volume in spec["volumes"] if volume["name"] == "shm")
    assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    cpu = pod(search(training("l3-slice"), SPACES[1], "random", 0, Budget(2), Place("h", "i:1", POOLS["cpu"])))
    assert "nvidia.com/gpu" not in cpu["containers"][0]["resources"]["limits"]
    assert not {"nodeSelector", "tolerations"} & cpu.keys()


def test_names_follow_what_decides_the_outcome_and_nothing_else() -> None:
    def name(**changes: Any) -> str:
        values: dict[str, Any] = {
            "training": training("lung-tumour"), "space": SPACES[0], "algorithm": "tpe", "seed": 0,
            "budget": Budget(9), "place": Place("hounsfield", "i:1", POOLS["cpu"]),
        }  # fmt: skip
        return str(search(**(values | changes))["metadata"]["name"])

    base = training("lung-tumour")
    moved = Training(base.task, base.module, "s3://elsewhere/run 2", base.contents, base.objective, base.fields)
    assert name() == name() == name(training=moved)
    others = {
        name(seed=1), name(algorithm="random"), name(budget=Budget(10)), name(training=training("lung-tumour", seed=3)),
        name(place=Place("hounsfield", "i:2", POOLS["cpu"])),
        name(training=Training(base.task, base.module, base.slices, "other", base.objective, base.fields)),
    }  # fmt: skip
    assert len(others) == 6
    assert name() not in others
    assert all(re.fullmatch(r"lung-tumour-[0-9a-f]{12}", other) for other in others)


def words_of(experiment: dict[str, Any], values: dict[str, str]) -> list[str]:
    """What a shell makes of a trial's command line after Katib has filled it in and wrapped it."""
    container = filled(experiment["spec"]["trialTemplate"], values)["spec"]["template"]["spec"]["containers"][0]
    shell, flag, script = wrapped(container)
    echo = script.replace("  python -m", f"  {sys.executable} -c 'import json,sys; print(json.dumps(sys.argv[1:]))' -m")
    done = subprocess.run([shell, flag, echo.partition(" 1>")[0]], capture_output=True, text=True, check=True)
    words: list[str] = json.loads(done.stdout)
    return ["python", *words]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_the_shell_gives_the_step_exactly_the_configuration(space: Space) -> None:
    texts = {item["name"]: item.get("max") or item["list"][-1] for item in space.feasible()}
    experiment = search(training(space.task), space, "random", 0, Budget(2), Place("h", "i:1", POOLS["cpu"]))
    config = configured(words_of(experiment, texts))
    expected = training_config(Config(task=space.task), json.dumps(ODD[space.task])).model_dump()
    assert config.model_dump() == expected | space.decode(texts)
    seeds = repeats(training(space.task), [4, 5], Budget(2), Place("h", "i:1", POOLS["cpu"]))
    assert configured(words_of(seeds, {"seed": "5"})).model_dump() == expected | {"seed": 5}


def trial_shell(tmp_path: Path, program: str) -> subprocess.Popen[str]:
    """A trial's container in which `program` trains, as Katib's webhook starts it."""
    experiment = search(training("l3-slice"), SPACES[1], "random", 0, Budget(2), Place("h", "i:1", POOLS["cpu"]))
    shell, flag, script = wrapped(pod(experiment)["containers"][0])
    assert "$(" not in script, "Kubernetes would expand it"
    (tmp_path / "program.py").write_text(program)
    script = re.sub(r"  python -m .* &\n", f"  {sys.executable} {tmp_path}/program.py &\n", script)
    script = script.replace(LOG, str(tmp_path / "metrics.log")).replace(TERMINATION_LOG, str(tmp_path / "termination"))
    script = script.replace("$$$$", "$$").replace("/var/log/katib", str(tmp_path))
    return subprocess.Popen([shell, flag, script], text=True)


def test_a_trial_that_ends_well_is_marked_for_the_collector(tmp_path: Path) -> None:
    process = trial_shell(tmp_path, "print('val_f1=0.5')")
    assert process.wait(20) == 0
    assert (tmp_path / "metrics.log").read_text() == "val_f1=0.5\n"
    assert (tmp_path / f"{process.pid}.pid").read_text() == "completed\n"
    assert not (tmp_path / "termination").exists()


@pytest.mark.parametrize("code", [1, 2, 3, 4])
def test_a_trial_that_fails_keeps_its_code_and_leaves_its_cause(tmp_path: Path, code: int) -> None:
    program = f"import sys; print('val_f1=0.5'); print('error: no {code}', file=sys.stderr); sys.exit({code})"
    process = trial_shell(tmp_path, program)
    assert process.wait(20) == code
    assert (tmp_path / "termination").read_text() == f"error: no {code}\n"
    assert not list(tmp_path.glob("*.pid"))


def test_sigterm_reaches_the_training_which_ends_with_its_own_code(tmp_path: Path) -> None:
    program = (
        "import signal, sys, time\n"
        "def stop(*_):\n    time.sleep(0.3); print('preempted: saved', flush=True); sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, stop); print('ready', flush=True)\n"
        "time.sleep(30)"
    )
    process = trial_shell(tmp_path, program)
    log = tmp_path / "metrics.log"
    while not (log.is_file() and "ready" in log.read_text()):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 75
    assert (tmp_path / "termination").read_text() == "preempted: saved\n"


def test_a_killed_training_keeps_the_code_of_its_signal(tmp_path: Path) -> None:
    process = trial_shell(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert process.wait(20) == 137


@pytest.mark.parametrize(
    ("line", "ours", "katibs"),
    [
        ("val_f1=0.912345", ["0.912345"], ["0.912345"]),
        ("val_f1=1", ["1"], ["1"]),
        ("val_f1=0.000000", ["0.000000"], ["0.000000"]),
        ("progress train-unet 3/10 loss=0.31 val_f1=0.8123", [], ["0.8123"]),
        ("best_val_f1=0.5", [], []),
        ("val_f1=nan", [], [""]),
    ],
)
def test_metric_lines_by_our_expression_and_by_katibs_own(line: str, ours: list[str], katibs: list[str]) -> None:
    assert collected(line, ["val_f1"], [METRICS_FORMAT]).get("val_f1", []) == ours
    assert collected(line, ["val_f1"], [DEFAULT_FILTER]).get("val_f1", []) == katibs


@pytest.mark.parametrize(
    ("given", "written"), [("1024Mi", "1Gi"), ("8Gi", "8Gi"), ("1536Mi", "1536Mi"), ("2048Gi", "2Ti")]
)
def test_sizes_are_as_kubernetes_writes_them_back(given: str, written: str) -> None:
    assert canonical(given) == written


def test_unknown_algorithms_are_refused_here() -> None:
    with pytest.raises(InputError, match="algorithm hyperband: expected bayesianoptimization, tpe, random"):
        search(training("l3-slice"), SPACES[1], "hyperband", 0, Budget(2), Place("h", "i:1", POOLS["cpu"]))  # type: ignore[arg-type]


def test_manifests_are_those_of_the_code() -> None:
    folder = ROOT / "manifests" / "katib"
    files = rendered(Arguments(out=""))
    assert {path.name for path in folder.glob("*.yaml")} == set(files)
    for name, text in files.items():
        assert (folder / name).read_text() == text, (
            "run python -m hounsfield.components.tune.render --out manifests/katib"
        )


def test_manifests_are_usable_as_they_are(crds: Path) -> None:
    for path in (ROOT / "manifests" / "katib").glob("*.yaml"):
        experiment = yaml.safe_load(path.read_text())
        assert refusals(experiment) == []
        assert errors_of_experiment(experiment, crds) == []
        kubernetes_validate.validate(job(experiment), "1.32", strict=True)
        assert f"--slices=s3://hounsfield/slices/{path.stem} " in pod(experiment)["containers"][0]["args"][0]


def test_render_command_sets_place_and_data(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hounsfield.components.tune.render", "--out", str(tmp_path), "--pool", "eks"]
    command += ["--slices", "s3://mine/here", "--image", "registry.example.org/t:2", "--namespace", "team"]
    assert subprocess.run(command, capture_output=True, cwd=tmp_path).returncode == 0
    experiment = yaml.safe_load((tmp_path / "l3-slice.yaml").read_text())
    assert experiment["metadata"]["namespace"] == "team"
    assert pod(experiment)["containers"][0]["image"] == "registry.example.org/t:2"
    assert "--slices=s3://mine/here/l3-slice " in pod(experiment)["containers"][0]["args"][0]
