"""A Kubernetes API server with Katib in it, as far as a search meets it: suggestions, trials, pods, events.

How Katib fills the trial template, what it makes of a Job's end and when an Experiment has succeeded or failed are
restated from kubeflow/katib (pkg/controller.v1beta1, pkg/webhook/v1beta1/pod). The controllers take one step whenever
somebody reads the Experiment. What a trial does is a function of the command line in its pod.
"""

import copy
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import skopt
from katib_admission import refusals

TOKEN = "token-of-the-test"
NAMESPACE = "hounsfield"
DEFAULT_FILTER = r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)"
"""`DefaultFilter` of Katib's metrics collector (pkg/metricscollector/v1beta1/common/const.go)."""
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Ended:
    """How the container of a trial ends: its exit code, what it printed, and its termination message."""

    code: int = 0
    printed: str = ""
    message: str = ""
    reason: str = ""


Trainer = Callable[[list[str], int], Ended]
"""From the words of a trial's command line and the number of earlier pods of its Job."""


@dataclass
class KatibApi:
    """The state of the cluster. `trains` is what trials do; the other fields are what is wrong with the cluster."""

    trains: Trainer
    has_katib: bool = True
    namespaces: tuple[str, ...] = (NAMESPACE,)
    forbidden: tuple[tuple[str, str], ...] = ()
    experiments_allowed: int = 100
    nodes: bool = True
    pods_allowed: int = 100
    webhook: bool = True
    suggests: bool = True
    image_exists: bool = True
    pod_security: bool = False
    failing_requests: int = 0
    token: str = TOKEN
    objects: dict[str, dict[str, dict[str, Any]]] = field(
        default_factory=lambda: {"experiments": {}, "trials": {}, "pods": {}, "events": {}}
    )
    requests: list[tuple[str, str]] = field(default_factory=list)
    optimisers: dict[str, Any] = field(default_factory=dict)
    ticks: int = 0
    before_step: Callable[["KatibApi"], None] = lambda api: None
    url: str = ""

    def of(self, kind: str, experiment: str) -> list[dict[str, Any]]:
        """Objects of `kind` that belong to an Experiment."""
        label = "app.kubernetes.io/instance" if kind == "pods" else "katib.kubeflow.org/experiment"
        return [item for item in self.objects[kind].values() if item["metadata"]["labels"].get(label) == experiment]

    def create(self, body: dict[str, Any]) -> tuple[int, Any]:
        name = body["metadata"]["name"]
        if name in self.objects["experiments"]:
            return 409, status(409, f'experiments.kubeflow.org "{name}" already exists', "AlreadyExists")
        refused = refusals(body)
        if refused:
            text = f'admission webhook "validator.experiment.katib.kubeflow.org" denied the request: {refused[0]}'
            return 400, status(400, text, "BadRequest")
        if len(self.objects["experiments"]) >= self.experiments_allowed:
            text = f'experiments.kubeflow.org "{name}" is forbidden: exceeded quota: hounsfield, requested: count/...'
            return 403, status(403, text, "Forbidden")
        made = copy.deepcopy(body)
        made["metadata"] |= {"creationTimestamp": self.now(), "uid": name}
        made["status"] = {"conditions": [condition("Created", "ExperimentCreated", "Experiment is created")]}
        self.objects["experiments"][name] = made
        return 201, made

    def delete(self, name: str) -> None:
        del self.objects["experiments"][name]
        for kind in ("trials", "pods"):
            for item in self.of(kind, name):
                del self.objects[kind][item["metadata"]["name"]]

    def now(self) -> str:
        self.ticks += 1
        return (START + timedelta(seconds=self.ticks)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def warn(self, about: str, reason: str, message: str) -> None:
        name = f"{about}.{reason}"
        self.objects["events"][name] = {
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {}, "creationTimestamp": self.now()},
            "involvedObject": {"name": about, "namespace": NAMESPACE},
            "reason": reason,
            "message": message,
            "type": "Warning",
            "lastTimestamp": self.now(),
        }

    def step(self, name: str) -> None:
        """One round of Katib's and the Job controller's work on an Experiment."""
        self.before_step(self)
        experiment = self.objects["experiments"].get(name)
        if experiment is None:
            return
        trials = self.of("trials", name)
        for trial in trials:
            if not closed(trial):
                self._work(trial)
        spec, state = experiment["spec"], experiment["status"]
        if any(item["type"] in ("Succeeded", "Failed") for item in state["conditions"]):
            return
        failed = sum(has(trial, "Failed") or has(trial, "MetricsUnavailable") for trial in trials)
        done = sum(closed(trial) for trial in trials)
        if failed and failed >= spec["maxFailedTrialCount"]:
            said = "Experiment has failed because max failed count has reached"
            state["conditions"].append(condition("Failed", "ExperimentFailed", said))
        elif done >= spec["maxTrialCount"]:
            said = "Experiment has succeeded because max trial count has reached"
            state["conditions"].append(condition("Succeeded", "ExperimentMaxTrialsReached", said))
        elif self.suggests:
            for _ in range(min(spec["parallelTrialCount"], spec["maxTrialCount"] - done) - (len(trials) - done)):
                self._add_trial(experiment)
        else:
            self.warn(name, "ReconcileError", "Failed to reconcile: no suggestion service")
        if self.pod_security:
            said = 'pods "x" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false'
            self.warn(f"{name}-random-7d9", "FailedCreate", f"Error creating: {said}")

    def _add_trial(self, experiment: dict[str, Any]) -> None:
        name, spec = experiment["metadata"]["name"], experiment["spec"]
        assigned = self._suggest(experiment)
        number = len(self.of("trials", name))
        trial_name = f"{name}-{(number * 7919 + 4241) % 0xFFFF:04x}{number:02d}"
        self.objects["trials"][trial_name] = {
            "apiVersion": "kubeflow.org/v1beta1",
            "kind": "Trial",
            "metadata": {
                "name": trial_name,
                "namespace": NAMESPACE,
                "labels": {"katib.kubeflow.org/experiment": name},
                "creationTimestamp": self.now(),
            },
            "spec": {
                "objective": spec["objective"],
                "parameterAssignments": [{"name": key, "value": value} for key, value in assigned.items()],
                "runSpec": filled(spec["trialTemplate"], assigned),
                "metricsCollector": spec["metricsCollectorSpec"],
            },
            "status": {
                "conditions": [condition("Created", "TrialCreated", "Trial is created")],
                "startTime": self.now(),
            },
        }

    def _suggest(self, experiment: dict[str, Any]) -> dict[str, str]:
        """The next parameters as Katib's services suggest them: scikit-optimize, or the grid in its order."""
        name, spec = experiment["metadata"]["name"], experiment["spec"]
        trials = self.of("trials", name)
        parameters = spec["parameters"]
        names = [parameter["name"] for parameter in parameters]
        if spec["algorithm"]["algorithmName"] == "grid":
            return {names[0]: parameters[0]["feasibleSpace"]["list"][len(trials)]}
        dimensions = [dimension(parameter) for parameter in parameters]
        settings = {item["name"]: item["value"] for item in spec["algorithm"]["algorithmSettings"]}
        if spec["algorithm"]["algorithmName"] != "bayesianoptimization":
            drawn = skopt.space.Space(dimensions).rvs(random_state=int(settings["random_state"]) + len(trials))[0]
            return {key: str(value) for key, value in zip(names, drawn, strict=True)}
        optimiser = skopt.Optimizer(
            dimensions,
            base_estimator=settings["base_estimator"],
            n_initial_points=int(settings["n_initial_points"]),
            random_state=int(settings["random_state"]),
        )
        done = [trial for trial in trials if has(trial, "Succeeded")]
        if done:
            metric = spec["objective"]["objectiveMetricName"]
            points = [
                [typed(item["value"]) if d.name != "categorical" else item["value"]
                 for item, d in zip(trial["spec"]["parameterAssignments"], dimensions, strict=True)]
                for trial in done
            ]  # fmt: skip
            optimiser.tell(points, [-observed(trial, metric) for trial in done])
        return {key: str(value) for key, value in zip(names, optimiser.ask(), strict=True)}

    def _work(self, trial: dict[str, Any]) -> None:
        """One step of a trial's Job: its pod starts, waits, runs or ends."""
        name, job = trial["metadata"]["name"], trial["spec"]["runSpec"]
        if not has(trial, "Running"):
            trial["status"]["conditions"].append(condition("Running", "TrialRunning", "Trial is running"))
        pods = [
            pod
            for pod in self.objects["pods"].values()
            if pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] == name
        ]
        if not pods or pods[-1]["status"]["phase"] == "Failed":
            if len(self.objects["pods"]) >= self.pods_allowed:
                said = f'pods "{name}-x" is forbidden: exceeded quota: gpu, requested: requests.nvidia.com/gpu=1'
                self.warn(name, "FailedCreate", f"Error creating: {said}")
                return
            self._add_pod(trial, len(pods))
            return
        pod = pods[-1]
        if pod["status"]["phase"] == "Pending":
            if self.nodes and self.image_exists:
                pod["status"] = {"phase": "Running", "containerStatuses": [container({"running": {}})]}
            return
        ended = self.trains(command_of(pod), len(pods) - 1)
        terminated = {"exitCode": ended.code, "message": ended.message, "reason": ended.reason or "Error"}
        phase = "Failed" if ended.code else "Succeeded"
        pod["status"] = {"phase": phase, "containerStatuses": [container({"terminated": terminated})]}
        if ended.code:
            self._failed(trial, job, pod, ended.code, len(pods))
        elif self.webhook:
            self._collected(trial, ended.printed)

    def _add_pod(self, trial: dict[str, Any], number: int) -> None:
        name, template = trial["metadata"]["name"], trial["spec"]["runSpec"]["spec"]["template"]
        labels = template["metadata"]["labels"] | {"batch.kubernetes.io/job-name": name, "job-name": name}
        if self.webhook:
            labels |= {"katib.kubeflow.org/trial": name} | trial["metadata"]["labels"]
        pod_name = f"{name}-{number:05d}"
        state: dict[str, Any] = {"phase": "Pending", "conditions": []}
        if not self.nodes:
            said = "0/5 nodes are available: 5 node(s) didn't match Pod's node affinity/selector."
            state["conditions"] = [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}
            ]
        elif not self.image_exists:
            image = template["spec"]["containers"][0]["image"]
            said = f'Back-off pulling image "{image}"'
            state["containerStatuses"] = [container({"waiting": {"reason": "ImagePullBackOff", "message": said}})]
        self.objects["pods"][pod_name] = {
            "metadata": {"name": pod_name, "namespace": NAMESPACE, "labels": labels, "creationTimestamp": self.now()},
            "spec": copy.deepcopy(template["spec"]),
            "status": state,
        }

    def _failed(self, trial: dict[str, Any], job: dict[str, Any], pod: dict[str, Any], code: int, pods: int) -> None:
        """What the Job controller does about a failed pod by the Job's podFailurePolicy and backoffLimit."""
        for number, rule in enumerate(job["spec"]["podFailurePolicy"]["rules"]):
            on = rule.get("onExitCodes")
            if on and on["operator"] == "In" and code in on["values"]:
                if rule["action"] == "FailJob":
                    said = (
                        f"Container training for pod {NAMESPACE}/{pod['metadata']['name']} failed with exit code "
                        f"{code} matching FailJob rule at index {number}"
                    )
                    self._close(trial, "Failed", f"Trial has failed. Job message: {said}")
                return
        if pods > job["spec"]["backoffLimit"]:
            said = "Job has reached the specified backoff limit"
            self._close(trial, "Failed", f"Trial has failed. Job message: {said}")

    def _collected(self, trial: dict[str, Any], printed: str) -> None:
        objective = trial["spec"]["objective"]
        names = [objective["objectiveMetricName"], *objective["additionalMetricNames"]]
        source = trial["spec"]["metricsCollector"]["source"]["filter"]["metricsFormat"]
        found = collected(printed, names, source)
        trial["status"]["observation"] = {"metrics": [metric(name, found.get(name, [])) for name in names]}
        if names[0] in found:
            self._close(trial, "Succeeded", "Trial has succeeded")
        else:
            self._close(trial, "MetricsUnavailable", "Metrics are not available")

    def _close(self, trial: dict[str, Any], kind: str, message: str) -> None:
        for item in trial["status"]["conditions"]:
            item["status"] = "False" if item["type"] == "Running" else item["status"]
        trial["status"]["conditions"].append(condition(kind, f"Trial{kind}", message))
        trial["status"]["completionTime"] = self.now()


def collected(printed: str, names: list[str], formats: list[str]) -> dict[str, list[str]]:
    """The values of metrics in a log, as Katib's file collector finds them (parseLogsInTextFormat)."""
    found: dict[str, list[str]] = {}
    for line in printed.split("\n"):
        if not any(name in line for name in names):
            continue
        for pattern in formats or [DEFAULT_FILTER]:
            for match in re.finditer(pattern, line):
                if match[1].strip() in names:
                    found.setdefault(match[1].strip(), []).append(match[2].strip())
    return found


def metric(name: str, values: list[str]) -> dict[str, str]:
    numbers = sorted(values, key=float)
    if not numbers:
        return dict.fromkeys(("min", "max", "latest"), "unavailable") | {"name": name}
    return {"name": name, "min": numbers[0], "max": numbers[-1], "latest": values[-1]}


def observed(trial: dict[str, Any], name: str) -> float:
    return next(float(item["latest"]) for item in trial["status"]["observation"]["metrics"] if item["name"] == name)


def dimension(parameter: dict[str, Any]) -> Any:
    """A parameter as Katib's scikit-optimize service declares it: every double is log-uniform."""
    space, kind = parameter["feasibleSpace"], parameter["parameterType"]
    if kind == "int":
        return skopt.space.Integer(int(space["min"]), int(space["max"]), name="int")
    if kind == "double":
        return skopt.space.Real(float(space["min"]), float(space["max"]), "log-uniform", name="double")
    return skopt.space.Categorical(space["list"], name="categorical")


def typed(text: str) -> int | float:
    return int(text) if re.fullmatch(r"-?\d+", text) else float(text)


def filled(template: dict[str, Any], assigned: dict[str, str]) -> dict[str, Any]:
    """The trial template with parameters in place of placeholders, which Katib replaces in its JSON text."""
    text = json.dumps(template["trialSpec"])
    for parameter in template["trialParameters"]:
        text = text.replace(f"${{trialParameters.{parameter['name']}}}", assigned[parameter["reference"]])
    made: dict[str, Any] = json.loads(text)
    return made


def wrapped(container: dict[str, Any]) -> list[str]:
    """Command and arguments after Katib's webhook has wrapped them for the StdOut collector (wrapWorkerContainer)."""
    words = [*container.get("command", []), *container.get("args", [])]
    command = ["sh", "-c"]
    if words[0] in ("sh", "bash") and words[1] == "-c":
        command, words = words[:2], words[2:]
    mark = "&& echo completed > /var/log/katib/$$$$.pid"
    return [*command, " ".join([*words, "1>/var/log/katib/metrics.log 2>&1", mark])]


def command_of(pod: dict[str, Any]) -> list[str]:
    """The words of the training's command line in the shell script of a trial's pod."""
    script = pod["spec"]["containers"][0]["args"][0]
    line = next(line for line in script.splitlines() if "python -m" in line)
    return shlex.split(line.removesuffix("&"))


def container(state: dict[str, Any]) -> dict[str, Any]:
    base = {"name": "training", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
    return base | {"state": state}


def condition(kind: str, reason: str, message: str) -> dict[str, str]:
    return {"type": kind, "status": "True", "reason": reason, "message": message}


def has(thing: dict[str, Any], kind: str) -> bool:
    return any(item["type"] == kind and item["status"] == "True" for item in thing["status"]["conditions"])


def closed(trial: dict[str, Any]) -> bool:
    return any(has(trial, kind) for kind in ("Succeeded", "Failed", "MetricsUnavailable"))


def status(code: int, message: str, reason: str) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
