"""What Katib would refuse an Experiment for, restated from its webhook and its algorithm services.

kubeflow/katib: pkg/webhook/v1beta1/experiment/validator, pkg/suggestion/v1beta1.
"""

import json
import re
from typing import Any

from kubernetes.utils.quantity import parse_quantity

ALGORITHMS = {"bayesianoptimization", "tpe", "random", "grid"}
SETTINGS = {
    "bayesianoptimization": {"base_estimator", "n_initial_points", "acq_func", "acq_optimizer", "random_state"},
    "tpe": {"gamma", "prior_weight", "n_EI_candidates", "random_state"},
    "random": {"random_state"},
    "grid": {"random_state"},
}
PLACEHOLDER = re.compile(r"\$\{trialParameters\..+?\}")


def refusals(experiment: dict[str, Any]) -> list[str]:
    """What Katib's webhook and its algorithm services would refuse an Experiment for; empty when they take it."""
    spec, name = experiment["spec"], experiment["metadata"]["name"]
    template = spec["trialTemplate"]
    objective, collector = spec["objective"], spec["metricsCollectorSpec"]
    found = [
        (not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) or len(name) > 40, f"name {name}"),
        (spec["maxTrialCount"] <= 0 or spec["parallelTrialCount"] <= 0, "counts must be above 0"),
        (spec["parallelTrialCount"] > spec["maxTrialCount"], "parallelTrialCount above maxTrialCount"),
        (not 0 <= spec["maxFailedTrialCount"] <= spec["maxTrialCount"], "maxFailedTrialCount out of range"),
        (objective["type"] not in ("minimize", "maximize"), "objective.type"),
        (not objective.get("objectiveMetricName"), "objectiveMetricName"),
        (objective["objectiveMetricName"] in objective.get("additionalMetricNames", []), "objective is additional"),
        (spec.get("resumePolicy") not in ("Never", "LongRunning", "FromVolume"), "resumePolicy"),
        (not template.get("primaryContainerName"), "primaryContainerName"),
        (not template.get("successCondition") or not template.get("failureCondition"), "conditions"),
        (collector["collector"]["kind"] != "StdOut", "collector kind"),
        (not spec["parameters"], "no parameters"),
    ]
    found += [(True, text) for text in algorithm_refusals(spec)]
    for parameter in spec["parameters"]:
        found += [(True, f"{parameter['name']}: {text}") for text in parameter_refusals(parameter)]
    for pattern in collector["source"]["filter"]["metricsFormat"]:
        found.append((not re.match(r".*\(.*\).*\(.*\).*", pattern), "metricsFormat needs two groups"))
        found.append((";" in pattern, "metricsFormat is split at semicolons"))
    found += [(True, text) for text in template_refusals(template, {item["name"] for item in spec["parameters"]})]
    return [text for refused, text in found if refused]


def algorithm_refusals(spec: dict[str, Any]) -> list[str]:
    algorithm = spec["algorithm"]["algorithmName"]
    if algorithm not in ALGORITHMS:
        return [f"algorithm {algorithm}"]
    given = {item["name"]: item["value"] for item in spec["algorithm"].get("algorithmSettings", [])}
    found = [f"unknown setting {name}" for name in given if name not in SETTINGS[algorithm]]
    found += [f"{name} must be text" for name, value in given.items() if not isinstance(value, str)]
    found += [f"{name} below 0" for name in ("random_state", "n_initial_points") if int(given.get(name, 0)) < 0]
    if algorithm == "grid":
        combinations = 1
        for parameter in spec["parameters"]:
            combinations *= len(parameter["feasibleSpace"]["list"])
        found += ["Max Trial Count above all combinations"] * (spec["maxTrialCount"] > combinations)
    return found


def parameter_refusals(parameter: dict[str, Any]) -> list[str]:
    space, kind = parameter["feasibleSpace"], parameter["parameterType"]
    found = [f"{key} must be text" for key in ("min", "max", "step") if not isinstance(space.get(key, ""), str)]
    if kind in ("double", "int"):
        if "list" in space or not space.get("min") or not space.get("max"):
            return [*found, "min and max, and no list"]
        if kind == "double" and float(space["min"]) <= 0:
            found.append("scikit-optimize's log-uniform prior does not take 0")
        if "e" in space["min"] + space["max"]:
            found.append("an exponent is a number to some readers of YAML and a text to others")
    elif kind in ("discrete", "categorical"):
        if not space.get("list") or any(key in space for key in ("min", "max", "step")):
            found.append("a list, and no min, max or step")
        found += [f"{value!r} must be text" for value in space.get("list", []) if not isinstance(value, str)]
    else:
        found.append(f"type {kind}")
    return found


def template_refusals(template: dict[str, Any], parameters: set[str]) -> list[str]:
    found = []
    text = json.dumps(template["trialSpec"])
    names = [item["name"] for item in template["trialParameters"]]
    references = [item["reference"] for item in template["trialParameters"]]
    if len({*names}) < len(names) or len({*references}) < len(references):
        found.append("duplicated trialParameters")
    found += [f"reference {item} does not exist" for item in references if item not in parameters]
    found += [f"parameter {item} has no trialParameter" for item in parameters if item not in references]
    for name in names:
        if f"${{trialParameters.{name}}}" not in text:
            found.append(f"{name} is not in the trialSpec")
        text = text.replace(f"${{trialParameters.{name}}}", "test-value")
    found += [f"{item} is not in trialParameters" for item in PLACEHOLDER.findall(text)]
    job = template["trialSpec"]
    if job.get("metadata", {}).get("name") or job.get("metadata", {}).get("namespace"):
        found.append("metadata.name and metadata.namespace must be omitted")
    if (job.get("apiVersion"), job.get("kind")) != ("batch/v1", "Job"):
        found.append("apiVersion and kind")
    return found + [f"unable to convert {path}" for path in lost_in_conversion(job["spec"], "/spec")]


def lost_in_conversion(value: Any, path: str) -> list[str]:
    """What a Job's Go types would not write back as it was given, for which validatePatchJob refuses a template."""
    if isinstance(value, dict):
        empty = [f"{path}/{key}" for key, item in value.items() if item in ("", [], {}) and key != "emptyDir"]
        return empty + [
            lost
            for key, item in value.items()
            if key not in ("resources",)
            for lost in lost_in_conversion(item, f"{path}/{key}")
        ]
    if isinstance(value, list):
        return [lost for number, item in enumerate(value) for lost in lost_in_conversion(item, f"{path}/{number}")]
    if path.endswith("/sizeLimit"):
        units = {"Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
        exact = [unit for unit, size in units.items() if parse_quantity(value) % size == 0]
        return [] if value.endswith(exact[-1]) else [path]
    return []
