"""Katib Experiments: a search over a space, or the seeds of one setting, with trials as Jobs on a pool of nodes.

Katib's webhook joins the trial container's command and arguments with spaces, appends a redirection of the output to
`LOG` and a mark of success, and gives the result to a shell. The command is therefore a quoted shell script of its own:
it passes SIGTERM on to the training, which then saves a checkpoint, and leaves the last line of the log as the
container's termination message, which is where the cause of a failure is read.
"""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from kubeflow_katib_api import models

from hounsfield import __version__
from hounsfield.errors import InputError
from hounsfield.pool import RESTRICTED_CONTAINER, RESTRICTED_POD, Pool
from hounsfield.search.objective import Objective
from hounsfield.search.proposals import STARTUP_TRIALS
from hounsfield.search.space import Space
from hounsfield.step import EXIT_BAD_INPUT, EXIT_OUT_OF_MEMORY, EXIT_PREEMPTED, EXIT_TRAINING_FAILED
from hounsfield.storage import sha256_bytes
from hounsfield.surroundings import TRIALS_ACCOUNT, training_environment

API_VERSION = "kubeflow.org/v1beta1"
Algorithm = Literal["bayesianoptimization", "tpe", "random"]
CONTAINER = "training"
LOG = "/var/log/katib/metrics.log"
"""Where Katib's webhook sends the output of the trial's container."""
TERMINATION_LOG = "/dev/termination-log"
METRICS_FORMAT = r"^(val_[a-z0-9_]+)=([0-9]+(\.[0-9]+)?)$"
"""A line that is one metric: Katib's own expression would also take the `val_f1=0.81` of a progress line."""
METRICS = ("val_average_precision", "val_f1", "val_precision", "val_recall", "val_accuracy", "val_loss")
KILLED = 137
"""Exit code of SIGKILL; without a disruption of the pod it is the kernel, for want of memory."""
FINAL_CODES = sorted((EXIT_BAD_INPUT, EXIT_TRAINING_FAILED, EXIT_OUT_OF_MEMORY, KILLED))
CRASHES = 2
"""Retries of a trial whose process ends with any other code."""
HOURS_OF_LOGS = 1
GRACE = 120
"""Seconds from SIGTERM to SIGKILL, in which a training saves its checkpoint."""


@dataclass(frozen=True)
class Place:
    """Where trials run: namespace, image and pool; `hours` is how long one may take, waiting for nodes included."""

    namespace: str
    image: str
    pool: Pool
    hours: float = 24.0
    pull_secret: str = ""


@dataclass(frozen=True)
class Training:
    """What every trial runs: a step's module on a slice set at a URI, with fields of its configuration.

    `contents` is the hash of the slice set, which stands for the URI in names.
    """

    task: str
    module: str
    slices: str
    contents: str
    objective: Objective
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Budget:
    """How many trials, how many of them at once, and after how many failed ones Katib gives up."""

    trials: int
    parallel: int = 1
    failures: int = 0

    @property
    def failed(self) -> int:
        """`failures`, or for 0 half of the trials and at least three."""
        return min(self.trials, self.failures or max(3, self.trials // 2))


def search(
    training: Training, space: Space, algorithm: Algorithm, seed: int, budget: Budget, place: Place
) -> dict[str, Any]:
    """An Experiment that searches `space`; trials get Katib's texts as `--assigned` and decode them themselves.

    Its name is a hash of everything that decides its outcome, so the same call makes the same Experiment.

    Raises:
        InputError: an algorithm that is not offered.
    """
    if algorithm not in get_args(Algorithm):
        raise InputError(f"algorithm {algorithm}: expected {', '.join(get_args(Algorithm))}")
    settings = {"random_state": str(seed)}
    if algorithm == "bayesianoptimization":
        settings |= {"base_estimator": "GP", "n_initial_points": str(max(1, min(STARTUP_TRIALS, budget.trials // 2)))}
    names = space.names
    assigned = json.dumps({name: placeholder(name) for name in names})
    parameters = [_parameter(item) for item in space.feasible()]
    flags = [f"--space={space.name}", f"--assigned={assigned}"]
    return _experiment(training, parameters, flags, algorithm, settings, budget, place)


def repeats(training: Training, seeds: list[int], budget: Budget, place: Place) -> dict[str, Any]:
    """An Experiment that trains one setting, the fields of `training`, once with each of `seeds`."""
    parameters = [_parameter({"name": "seed", "type": "categorical", "list": [str(seed) for seed in seeds]})]
    flags = [f"--seed={placeholder('seed')}"]
    return _experiment(training, parameters, flags, "grid", {}, budget, place)


def placeholder(name: str) -> str:
    """What Katib replaces by the value of parameter `name`."""
    return f"${{trialParameters.{name}}}"


def _experiment(
    training: Training,
    parameters: list[models.V1beta1ParameterSpec],
    flags: list[str],
    algorithm: str,
    settings: Mapping[str, str],
    budget: Budget,
    place: Place,
) -> dict[str, Any]:
    metric = training.objective.metric
    names = [str(parameter.name) for parameter in parameters]
    others = [name for name in METRICS if name != metric]
    latest = [models.V1beta1MetricStrategy(name=name, value="latest") for name in (metric, *others)]

    def spec(slices: str, name: str) -> models.V1beta1ExperimentSpec:
        return models.V1beta1ExperimentSpec(
            objective=models.V1beta1ObjectiveSpec(
                type="maximize",
                objectiveMetricName=metric,
                additionalMetricNames=others,
                metricStrategies=latest,
            ),
            algorithm=models.V1beta1AlgorithmSpec(
                algorithmName=algorithm,
                algorithmSettings=[
                    models.V1beta1AlgorithmSetting(name=name, value=value) for name, value in settings.items()
                ],
            ),
            parameters=parameters,
            maxTrialCount=budget.trials,
            parallelTrialCount=min(budget.parallel, budget.trials),
            maxFailedTrialCount=budget.failed,
            resumePolicy="Never",
            metricsCollectorSpec=models.V1beta1MetricsCollectorSpec(
                collector=models.V1beta1CollectorSpec(kind="StdOut"),
                source=models.V1beta1SourceSpec(filter=models.V1beta1FilterSpec(metricsFormat=[METRICS_FORMAT])),
            ),
            trialTemplate=models.V1beta1TrialTemplate(
                primaryContainerName=CONTAINER,
                successCondition='status.conditions.#(type=="Complete")#|#(status=="True")#',
                failureCondition='status.conditions.#(type=="Failed")#|#(status=="True")#',
                retain=True,
                trialParameters=[
                    models.V1beta1TrialParameterSpec(name=name, reference=name, description=name.replace("_", " "))
                    for name in names
                ],
                trialSpec=_job(script(command(training, slices, flags)), place, labels(name)),
            ),
        )

    identity = json.dumps(spec(training.contents, "").to_dict() | {"code": __version__}, sort_keys=True)
    name = f"{training.task}-{sha256_bytes(identity.encode())[:12]}"
    made = models.V1beta1Experiment(
        apiVersion=API_VERSION,
        kind="Experiment",
        metadata=models.IoK8sApimachineryPkgApisMetaV1ObjectMeta(
            name=name, namespace=place.namespace, labels=labels(name)
        ),
        spec=spec(training.slices, name),
    )
    return dict(made.to_dict())


def labels(name: str) -> dict[str, str]:
    """Labels of an Experiment and of the pods of its trials."""
    return {
        "app.kubernetes.io/name": "hounsfield",
        "app.kubernetes.io/component": "trials",
        **({"app.kubernetes.io/instance": name} if name else {}),
    }


def command(training: Training, slices: str, flags: list[str]) -> list[str]:
    """Command line of a trial; where its checkpoints go, the training reads from HOUNSFIELD_CHECKPOINTS."""
    return [
        "python",
        "-m",
        training.module,
        f"--slices={slices}",
        "--out=/tmp/model",
        f"--objective={training.objective.name}",
        *(flag(name, value) for name, value in training.fields.items()),
        *flags,
    ]


def flag(name: str, value: Any) -> str:
    """A configuration's field as an argument of the step's command line."""
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    return f"--{option}={value}"


def script(words: list[str]) -> str:
    """The shell script of a trial's container, to which Katib appends a redirection and `&& echo completed`."""
    return (
        "run() {\n"
        f"  {shlex.join(words)} &\n"
        "  trial=$!\n"
        "  trap 'kill -TERM $trial' TERM\n"
        "  wait $trial; code=$?\n"
        "  while [ $code -gt 128 ] && kill -0 $trial 2>/dev/null; do wait $trial; code=$?; done\n"
        f"  if [ $code -ne 0 ]; then tail -n 1 {LOG} > {TERMINATION_LOG}; fi\n"
        "  return $code\n"
        "}\n"
        "run"
    )


def _parameter(feasible: Mapping[str, Any]) -> models.V1beta1ParameterSpec:
    limits = {name: feasible[name] for name in ("min", "max", "list") if name in feasible}
    return models.V1beta1ParameterSpec(
        name=feasible["name"],
        parameterType=feasible["type"],
        feasibleSpace=models.V1beta1FeasibleSpace(**limits),
    )


def _job(text: str, place: Place, pod_labels: Mapping[str, str]) -> dict[str, Any]:
    """The Job of a trial. Katib refuses empty texts, lists and mappings: it would not find them again."""
    pool = place.pool
    shm = pool.shm_volume()
    shm["emptyDir"]["sizeLimit"] = canonical(shm["emptyDir"]["sizeLimit"])
    pod = {
        "restartPolicy": "Never",
        "serviceAccountName": TRIALS_ACCOUNT,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": GRACE,
        "securityContext": dict(RESTRICTED_POD),
        **{name: value for name, value in pool.scheduling().items() if value},
        **({"imagePullSecrets": [{"name": place.pull_secret}]} if place.pull_secret else {}),
        "containers": [
            {
                "name": CONTAINER,
                "image": place.image,
                "command": ["sh", "-c"],
                "args": [text],
                "env": training_environment(),
                "resources": pool.resources(),
                "securityContext": dict(RESTRICTED_CONTAINER),
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, pool.shm_mount()],
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {}}, shm],
    }
    istio = {"sidecar.istio.io/inject": "false"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "spec": {
            "backoffLimit": CRASHES,
            "activeDeadlineSeconds": round(place.hours * 3600),
            "ttlSecondsAfterFinished": HOURS_OF_LOGS * 3600,
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {"action": "Ignore", "onExitCodes": _codes(EXIT_PREEMPTED)},
                    {"action": "FailJob", "onExitCodes": _codes(*FINAL_CODES)},
                ]
            },
            "template": {"metadata": {"labels": {**pod_labels, **istio}, "annotations": istio}, "spec": pod},
        },
    }


def _codes(*codes: int) -> dict[str, Any]:
    return {"containerName": CONTAINER, "operator": "In", "values": list(codes)}


def canonical(quantity: str) -> str:
    """A memory quantity in the largest unit that holds it, as Kubernetes writes it back: 1024Mi is 1Gi."""
    match = re.fullmatch(r"(\d+)(Mi|Gi|Ti)", quantity)
    if match is None:
        return quantity
    number, units = int(match[1]), ["Mi", "Gi", "Ti"]
    unit = units.index(match[2])
    while number % 1024 == 0 and unit + 1 < len(units):
        number, unit = number // 1024, unit + 1
    return f"{number}{units[unit]}"
