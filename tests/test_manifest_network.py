"""Which connections the NetworkPolicies of the manifests let through, and that they let nothing else through."""

import pytest
from network_policies import Pod, allowed
from overlays import NAMESPACE, OVERLAYS, Resource, of, of_overlay

STEP = {"pipelines.kubeflow.org/v2_component": "true"}
TRIAL = {"katib.kubeflow.org/trial": "lung-1", "katib.kubeflow.org/experiment": "lung"}
SUGGESTION = {"katib.kubeflow.org/suggestion": "lung", "katib.kubeflow.org/experiment": "lung"}
TRAIN_JOB = {"jobset.sigs.k8s.io/jobset-name": "lung"}
NAMED = "app.kubernetes.io/name"
INTERNET, METADATA_SERVER, PRIVATE = (
    Pod(address="203.0.113.7"),
    Pod(address="169.254.169.254"),
    Pod(address="10.20.0.3"),
)
API_SERVER = Pod(address="10.96.0.1")


def here(labels: dict[str, str]) -> Pod:
    return Pod(NAMESPACE, labels)


def kubeflow(**labels: str) -> Pod:
    return Pod("kubeflow", labels)


MLFLOW, DATABASE, STORE = (here({NAMED: name}) for name in ("mlflow", "postgres", "s3"))
DB_MANAGER = Pod("kubeflow", {"katib.kubeflow.org/component": "db-manager"})
CONTROLLER = Pod("kubeflow", {"katib.kubeflow.org/component": "controller"})
METADATA = kubeflow(component="metadata-grpc-server")
KFP = kubeflow(app="ml-pipeline")
KUBE_DNS = Pod("kube-system", {"k8s-app": "kube-dns"})
STRANGER = Pod("default", {})


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_flows(overlay: str) -> None:
    check_flows(of_overlay(overlay), overlay)


def check_flows(resources: list[Resource], overlay: str) -> None:
    policies = list(of(resources, "NetworkPolicy").values())
    inside = overlay == "local"

    def passes(source: Pod, target: Pod, port: int, protocol: str = "TCP") -> bool:
        return allowed(policies, source, target, port, protocol)

    for labels in (STEP, TRIAL, TRAIN_JOB, {NAMED: "mlflow"}):
        assert passes(here(labels), KUBE_DNS, 53, "UDP"), labels
        assert passes(here(labels), STORE, 8333) is inside, labels
        assert passes(here(labels), INTERNET, 443) is (not inside or labels == STEP), labels
        assert not passes(here(labels), INTERNET, 80), labels
        assert not passes(here(labels), METADATA_SERVER, 80), labels
    assert passes(here(STEP), API_SERVER, 443)
    assert passes(here(STEP), API_SERVER, 6443)
    assert not passes(here(TRIAL), API_SERVER, 6443)
    assert passes(here(STEP), METADATA, 8080)
    assert passes(here(STEP), KFP, 8887)
    assert passes(here(STEP), kubeflow(app="seaweedfs"), 8333)
    assert passes(here(STEP), MLFLOW, 5000)
    assert not passes(here(TRIAL), MLFLOW, 5000)
    assert passes(here({NAMED: "hounsfield-submit"}), KFP, 8888)
    assert passes(KFP, MLFLOW, 5000)
    assert not passes(STRANGER, MLFLOW, 5000)
    assert passes(here(TRIAL), DB_MANAGER, 6789)
    assert not passes(here(STEP), DB_MANAGER, 6789)
    assert passes(CONTROLLER, here(SUGGESTION), 6789)
    assert not passes(STRANGER, here(SUGGESTION), 6789)
    assert not passes(here(SUGGESTION), INTERNET, 443)
    assert passes(here(TRAIN_JOB), here(TRAIN_JOB), 29500)
    assert not passes(here(TRIAL), here(TRAIN_JOB), 29500)
    in_cluster = "postgres" in of(resources, "StatefulSet")
    assert passes(MLFLOW, DATABASE, 5432) is in_cluster
    assert passes(MLFLOW, PRIVATE, 5432) is not in_cluster
    assert not passes(here(STEP), DATABASE, 5432)
    assert not passes(here(STEP), PRIVATE, 5432)
    unknown = here({"app": "unknown"})
    assert not passes(unknown, INTERNET, 443)
    assert not passes(STRANGER, unknown, 80)


@pytest.mark.parametrize(
    "removed", ["default-deny", "dns", "steps-to-api-server", "steps-to-mlflow", "trials-to-katib", "trials-to-s3"]
)
def test_a_missing_policy_is_found(removed: str) -> None:
    resources = [item for item in of_overlay("local") if item["metadata"]["name"] != removed]
    with pytest.raises(AssertionError):
        check_flows(resources, "local")


def test_an_open_policy_is_found() -> None:
    resources = of_overlay("local")
    of(resources, "NetworkPolicy")["mlflow"]["spec"]["ingress"] = [{}]
    with pytest.raises(AssertionError):
        check_flows(resources, "local")
