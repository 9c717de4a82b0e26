"""The kustomize manifests: every overlay is built and held against schemas, security rules and the code it serves."""

import re
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from network_policies import matches
from overlays import MANIFESTS, NAMESPACE, OVERLAYS, POOL_OF, Resource, kustomize, of, of_overlay
from pod_security import VIOLATIONS, hardened, pod_specs, restricted

from hounsfield import __version__
from hounsfield.components.images import CPU_IMAGE, TRAINING_IMAGE
from hounsfield.pool import POOLS, mebibytes

KUBERNETES = "1.32"
WITHOUT_SCHEMA = {("karpenter.sh/v1", "NodePool"), ("kubeflow.org/v1", "Profile")}
CLUSTER_SCOPED = {"Namespace", "NodePool", "Profile"}
BY_KUBEFLOW = {("ConfigMap", "kfp-launcher"), ("Secret", "mlpipeline-minio-artifact")}
"""What KFP's profile controller puts into the namespace."""


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def resources(overlay: str) -> list[Resource]:
    return of_overlay(overlay)


def invalid(resource: Resource) -> str:
    """What kubernetes-validate says against a resource; empty when it is valid."""
    try:
        kubernetes_validate.validate(resource, KUBERNETES, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        kind = resource["apiVersion"], resource["kind"]
        return "" if kind in WITHOUT_SCHEMA else f"no schema for {kind}"
    except kubernetes_validate.ValidationError as error:
        return str(error)
    return ""


def test_every_overlay_is_tested() -> None:
    assert {folder.name for folder in (MANIFESTS / "overlays").iterdir()} == set(OVERLAYS)


def test_resources_fit_the_schemas_of_kubernetes(resources: list[Resource]) -> None:
    assert [text for text in map(invalid, resources) if text] == []
    names = [(item["kind"], item["metadata"]["name"]) for item in resources]
    assert len(names) == len(set(names))
    for item in resources:
        namespace = None if item["kind"] in CLUSTER_SCOPED else NAMESPACE
        assert item["metadata"].get("namespace") == namespace, item["metadata"]["name"]


def test_a_misspelt_field_is_found() -> None:
    deployment = of(of_overlay("local"), "Deployment")["mlflow"]
    deployment["spec"]["template"]["spec"]["containers"][0]["redinessProbe"] = {}
    assert "redinessProbe" in invalid(deployment)


def test_pods_are_restricted(resources: list[Resource]) -> None:
    pods = [item for resource in resources for item in pod_specs(resource)]
    assert len(pods) >= 1
    for path, pod, annotations in pods:
        assert (path, restricted(pod, annotations), hardened(pod)) == (path, [], [])


@pytest.mark.parametrize("expected", VIOLATIONS)
def test_a_pod_that_is_not_restricted_is_found(expected: str) -> None:
    deployment = of(of_overlay("local"), "Deployment")["mlflow"]
    [(_, pod, _)] = pod_specs(deployment)
    VIOLATIONS[expected](pod)
    assert any(expected in text for text in restricted(pod)), expected


@pytest.mark.parametrize("removed", ["readOnlyRootFilesystem", "resources", "volumeMounts"])
def test_a_pod_that_is_not_hardened_is_found(removed: str) -> None:
    [(_, pod, _)] = pod_specs(of(of_overlay("local"), "Deployment")["mlflow"])
    container = pod["containers"][0]
    container.pop(removed, None) or container["securityContext"].pop(removed)
    assert hardened(pod)


def test_namespace(resources: list[Resource]) -> None:
    metadata = of(resources, "Namespace")[NAMESPACE]["metadata"]
    profile = of(resources, "Profile")[NAMESPACE]
    assert metadata["annotations"]["owner"] == profile["spec"]["owner"]["name"]  # else Kubeflow refuses the Profile
    labels = metadata["labels"]
    for mode in ("enforce", "audit", "warn"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"
        assert labels[f"pod-security.kubernetes.io/{mode}-version"] == f"v{KUBERNETES}"
    assert labels["katib.kubeflow.org/metrics-collector-injection"] == "enabled"
    assert labels["pipelines.kubeflow.org/enabled"] == "true"
    assert labels["app.kubernetes.io/part-of"] == "kubeflow-profile"


def test_images_are_pinned(resources: list[Resource]) -> None:
    images = {
        container["image"]
        for resource in resources
        for _, pod, _ in pod_specs(resource)
        for container in pod["containers"]
    }
    for image in images:
        assert re.fullmatch(r"[\w.-]+(/[\w.-]+)+:\d[\w.-]*", image), image
    ours = {image.rpartition(":")[2] for image in images if "hounsfield-mlflow" in image}
    assert ours == {__version__} == {reference.rpartition(":")[2] for reference in (CPU_IMAGE, TRAINING_IMAGE)}


def test_no_latest_in_any_file() -> None:
    for path in MANIFESTS.rglob("*.yaml"):
        assert not re.search(r"(:|newTag: *[\"']?)latest\b", path.read_text()), path


def test_no_secret_is_in_the_repository(resources: list[Resource]) -> None:
    assert of(resources, "Secret") == {}
    assert "*.env" in (MANIFESTS / "secrets" / ".gitignore").read_text().split()
    for path in (MANIFESTS / "secrets").glob("*.env.example"):
        for key, _, value in (line.partition("=") for line in path.read_text().splitlines() if line[:1] not in "#"):
            assert value in ("", "postgresql+psycopg://mlflow:PASSWORD@postgres:5432/mlflow"), (path.name, key)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Keys of the Secrets that manifests/secrets makes of files filled in like the examples."""
    folder = tmp_path_factory.mktemp("secrets")
    for path in (MANIFESTS / "secrets").iterdir():
        if path.suffix != ".env":
            shutil.copy(path, folder / path.name.removesuffix(".example"))
    return {item["metadata"]["name"]: set(item["data"]) for item in kustomize(folder)}


def references(pod: Resource) -> list[tuple[str, str, str]]:
    """(kind, name, key or "") of everything that a pod refers to; of what is optional there, the name alone."""
    found = [("ServiceAccount", pod["serviceAccountName"], "")]
    for container in pod["containers"]:
        for source in container.get("envFrom", []):
            for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                found += [(kind, source[field]["name"], "")] if field in source else []
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {})
            for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                key = "" if source.get(field, {}).get("optional") else source.get(field, {}).get("key")
                found += [(kind, source[field]["name"], key)] if field in source else []
    for volume in pod.get("volumes", []):
        if "secret" in volume:
            found += [("Secret", volume["secret"]["secretName"], item["key"]) for item in volume["secret"]["items"]]
    return found


def test_what_pods_refer_to_exists(resources: list[Resource], secrets: dict[str, set[str]]) -> None:
    maps = {name: set(item["data"]) for name, item in of(resources, "ConfigMap").items()}
    known = {"ConfigMap": maps, "Secret": secrets, "ServiceAccount": of(resources, "ServiceAccount")}
    for resource in resources:
        for path, pod, _ in pod_specs(resource):
            for kind, name, key in references(pod):
                assert name in known[kind], (path, kind, name)
                assert not key or key in known[kind][name], (path, kind, name, key)


def test_what_pipelines_refer_to_exists(
    resources: list[Resource], overlay: str, secrets: dict[str, set[str]], tmp_path: Path
) -> None:
    from kfp.compiler import Compiler

    from hounsfield.pipelines.lung_tumour import lung_tumour
    from hounsfield.pipelines.placement import Cluster, on_cluster

    cluster = Cluster(pool=POOLS[POOL_OF[overlay]])
    Compiler().compile(on_cluster(lung_tumour, cluster), str(tmp_path / "pipeline.yaml"))
    _, platform = yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text())
    maps, used = of(resources, "ConfigMap"), 0
    for executor in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        for source in executor.get("configMapAsEnv", []):
            used += 1
            assert {item["configMapKey"] for item in source["keyToEnv"]} <= set(maps[source["configMapName"]]["data"])
        for source in executor.get("secretAsEnv", []):
            assert {item["secretKey"] for item in source["keyToEnv"]} <= secrets[source["secretName"]]
    assert used


def test_what_trials_and_steps_run_under_exists(
    resources: list[Resource], overlay: str, secrets: dict[str, set[str]]
) -> None:
    from hounsfield.katib.experiment import Budget, Place, Training, repeats
    from hounsfield.search.objective import Objective
    from hounsfield.surroundings import PIPELINES_ACCOUNT

    training = Training("l3-slice", "hounsfield.components.train_l3", "s3://b/slices", "0" * 64, Objective("f1"))
    place = Place(NAMESPACE, TRAINING_IMAGE, POOLS[POOL_OF[overlay]])
    [(_, pod, annotations)] = pod_specs(repeats(training, [1, 2], Budget(2), place))
    assert restricted(pod, annotations) == hardened(pod) == []
    maps = {name: set(item["data"]) for name, item in of(resources, "ConfigMap").items()}
    accounts = of(resources, "ServiceAccount")
    assert PIPELINES_ACCOUNT in accounts
    for kind, name, key in references(pod):
        known = {"ConfigMap": maps, "Secret": secrets, "ServiceAccount": accounts}[kind]
        assert name in known, (kind, name)
        assert not key or key in known[name], (kind, name, key)


def test_service_accounts_and_roles(resources: list[Resource]) -> None:
    accounts, roles, bindings = (of(resources, kind) for kind in ("ServiceAccount", "Role", "RoleBinding"))
    assert of(resources, "ClusterRole") == of(resources, "ClusterRoleBinding") == {}
    for role in roles.values():
        for rule in role["rules"]:
            assert "*" not in {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}, role["metadata"]["name"]
            if "secrets" in rule["resources"]:
                assert rule["resourceNames"]
                assert rule["verbs"] == ["get"]
            for name in rule.get("resourceNames", []):
                kind = {"secrets": "Secret", "configmaps": "ConfigMap"}[rule["resources"][0]]
                assert (kind, name) in BY_KUBEFLOW
    bound = set()
    for binding in bindings.values():
        assert binding["roleRef"]["name"] in roles
        for subject in binding["subjects"]:
            assert subject["namespace"] == NAMESPACE
            assert subject["name"] in accounts
            bound.add(subject["name"])
    assert bound == {"hounsfield-pipelines", "hounsfield-submit"}
    mounted = {name for name, account in accounts.items() if account["automountServiceAccountToken"]}
    assert mounted == {"hounsfield-pipelines"}
    for resource in resources:
        for path, pod, _ in pod_specs(resource):
            assert pod["automountServiceAccountToken"] is False, path


def test_services_and_disruption_budgets_select_their_pods(resources: list[Resource]) -> None:
    workloads = of(resources, "Deployment") | of(resources, "StatefulSet")
    services, budgets = of(resources, "Service"), of(resources, "PodDisruptionBudget")
    assert set(services) == set(workloads)
    for name, workload in workloads.items():
        template = workload["spec"]["template"]
        assert matches(workload["spec"]["selector"], template["metadata"]["labels"])
        assert matches({"matchLabels": services[name]["spec"]["selector"]}, template["metadata"]["labels"])
        [container] = template["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert [ports[port["targetPort"]] for port in services[name]["spec"]["ports"]] == [
            port["port"] for port in services[name]["spec"]["ports"]
        ]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]
    assert set(budgets) == {"mlflow"}
    budget = budgets["mlflow"]["spec"]
    assert matches(budget["selector"], workloads["mlflow"]["spec"]["template"]["metadata"]["labels"])
    assert budget["maxUnavailable"] == 1  # a single replica may be drained too


def cores(quantity: str) -> float:
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def test_the_quota_has_room_for_trainings_of_the_pool(resources: list[Resource], overlay: str) -> None:
    pool, hard = POOLS[POOL_OF[overlay]], of(resources, "ResourceQuota")[NAMESPACE]["spec"]["hard"]
    assert int(hard["requests.nvidia.com/gpu"]) >= 2 * pool.count
    assert (int(hard["requests.nvidia.com/gpu"]) == 0) is (overlay == "local")
    requests = pool.resources()["requests"]
    assert cores(hard["requests.cpu"]) >= 4 * cores(requests["cpu"])
    assert mebibytes(hard["requests.memory"]) >= 4 * mebibytes(requests["memory"])
    claims = sum(
        mebibytes(claim["spec"]["resources"]["requests"]["storage"])
        for workload in of(resources, "StatefulSet").values()
        for claim in workload["spec"]["volumeClaimTemplates"]
    )
    assert claims <= mebibytes(hard["requests.storage"])
    [limits] = of(resources, "LimitRange")["containers"]["spec"]["limits"]
    assert set(limits["default"]) == set(limits["defaultRequest"]) == {"cpu", "memory"}


def test_eks_makes_the_nodes_that_its_pool_asks_for() -> None:
    pool, node_pool = POOLS["eks"], of(of_overlay("eks"), "NodePool")["hounsfield-gpu"]["spec"]
    requirements = {item["key"]: item["values"] for item in node_pool["template"]["spec"]["requirements"]}
    for label, value in pool.node_selector.items():
        assert requirements[label] == [value]
    tolerated = {(item.key, item.effect) for item in pool.tolerations}
    assert {(taint["key"], taint["effect"]) for taint in node_pool["template"]["spec"]["taints"]} <= tolerated
    assert pool.accelerator in node_pool["limits"]


def test_placeholders_cannot_reach_anything(resources: list[Resource], overlay: str) -> None:
    found = sorted({value for value in strings(resources) if "replace-me" in value})
    assert bool(found) is (overlay != "local")
    fails_loudly = (
        "*replace-me.invalid*",  # a name that never resolves (RFC 2606)
        "s3://replace-me..bucket/*",  # no bucket may have two dots in a row
        "arn:aws:iam::replace-me:role/*",  # no account
        "replace-me",  # no region
    )
    for value in found:
        assert any(fnmatch(value, pattern) for pattern in fails_loudly), value


def strings(value: Any) -> list[str]:
    if isinstance(value, dict | list):
        return [text for item in (value.values() if isinstance(value, dict) else value) for text in strings(item)]
    return [str(value)]


def test_the_registry_is_set_in_one_place() -> None:
    for overlay in OVERLAYS:
        kustomization = yaml.safe_load((MANIFESTS / "overlays" / overlay / "kustomization.yaml").read_text())
        [image] = kustomization["images"]
        assert image.keys() == {"name", "newName"}
        assert image["name"] == "hounsfield-mlflow"


def test_katib_makes_restricted_pods(tmp_path: Path) -> None:
    """The component replaces the configuration of Katib's installation, whose generator is written down here."""
    shutil.copytree(MANIFESTS / "components" / "katib-restricted", tmp_path / "katib-restricted")
    install = tmp_path / "install"
    install.mkdir()
    (install / "katib-config.yaml").write_text("kind: KatibConfig")
    generator = {"name": "katib-config", "files": ["katib-config.yaml"], "options": {"disableNameSuffixHash": True}}
    (install / "kustomization.yaml").write_text(
        yaml.safe_dump({"namespace": "kubeflow", "configMapGenerator": [generator]})
    )
    (tmp_path / "kustomization.yaml").write_text(
        yaml.safe_dump({"resources": ["install"], "components": ["katib-restricted"]})
    )
    [made] = kustomize(tmp_path)
    assert made["metadata"] == {"name": "katib-config", "namespace": "kubeflow"}
    config = yaml.safe_load(made["data"]["katib-config.yaml"])
    assert config["init"]["controller"]["injectSecurityContext"] is True
    assert "Job.v1.batch" in config["init"]["controller"]["trialResources"]
    services = {item.pop("algorithmName"): item for item in config["runtime"]["suggestions"]}
    assert {"bayesianoptimization", "tpe", "random", "grid"} <= set(services)
    for name, container in services.items():
        assert (name, restricted({"containers": [{"name": "suggestion", **container}]})) == (name, [])
        assert container["image"].endswith(":v0.19.0")
    assert "StdOut" in {item["kind"] for item in config["runtime"]["metricsCollectors"]}
