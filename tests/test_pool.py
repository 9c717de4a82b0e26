"""Pools: profiles, overrides by JSON, and the Kubernetes dictionaries that trainings get."""

import json
import math

import pytest
from kubernetes_validate import ValidationError, validate
from pydantic import ValidationError as Invalid

from hounsfield.errors import InputError
from hounsfield.pool import (
    POOLS,
    RESTRICTED_CONTAINER,
    RESTRICTED_POD,
    Pool,
    Toleration,
    mebibytes,
    pool_named,
)


def pod(pool: Pool) -> dict[str, object]:
    container = {
        "name": "main",
        "image": "registry.example.org/training:1",
        "resources": pool.resources(),
        "securityContext": RESTRICTED_CONTAINER,
        "volumeMounts": [pool.shm_mount()],
    }
    spec = {
        "containers": [container],
        "securityContext": RESTRICTED_POD,
        "volumes": [pool.shm_volume()],
        "restartPolicy": "Never",
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec | pool.scheduling()}


@pytest.mark.parametrize("name", POOLS)
def test_profile_makes_a_pod_that_kubernetes_takes(name: str) -> None:
    validate(pod(POOLS[name]), "1.32", strict=True)
    broken = pod(POOLS[name])
    broken["spec"]["tolerations"] = {"key": "nvidia.com/gpu"}  # type: ignore[index]
    with pytest.raises(ValidationError):
        validate(broken, "1.32", strict=True)


@pytest.mark.parametrize("name", POOLS)
def test_profile_survives_its_json(name: str) -> None:
    assert pool_named(name) is POOLS[name]
    assert pool_named(POOLS[name].model_dump_json()) == POOLS[name]


@pytest.mark.parametrize("name", ["nvidia", "gke", "eks"])
def test_accelerator_is_in_requests_and_limits_and_its_taint_is_tolerated(name: str) -> None:
    resources = POOLS[name].resources()
    assert resources["requests"] == resources["limits"]
    assert resources["limits"]["nvidia.com/gpu"] == "1"
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in POOLS[name].scheduling()[
        "tolerations"
    ]
    assert POOLS[name].node_selector


def test_cpu_profile_asks_for_no_accelerator_and_no_nodes() -> None:
    assert set(POOLS["cpu"].resources()["limits"]) == {"cpu", "memory"}
    assert POOLS["cpu"].scheduling() == {"nodeSelector": {}, "tolerations": []}


def test_json_replaces_fields_of_the_profile_that_it_names() -> None:
    pool = pool_named(
        '{"name": "gke", "count": 4, "node_selector": {"cloud.google.com/gke-accelerator": "nvidia-h100"}}'
    )
    assert pool.resources()["limits"]["nvidia.com/gpu"] == "4"
    assert pool.node_selector == {"cloud.google.com/gke-accelerator": "nvidia-h100"}
    assert pool.tolerations == POOLS["gke"].tolerations
    own = pool_named('{"name": "mig", "accelerator": "nvidia.com/mig-3g.40gb"}')
    assert own.resources()["limits"]["nvidia.com/mig-3g.40gb"] == "1"
    assert own.node_selector == {}


def test_toleration_of_a_value_keeps_it() -> None:
    assert Toleration(key="team", operator="Equal", value="radiology").as_dict() == {
        "key": "team", "operator": "Equal", "value": "radiology", "effect": "NoSchedule",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tpu", "expected nvidia, gke, eks, cpu"),
        ("{", "JSON"),
        ('{"name": "x", "counts": 2}', "counts"),
        ('{"name": "nvidia", "count": 0}', "accelerator and count go together"),
        ('{"name": "nvidia", "shm": "64Gi"}', "shm 64Gi is part of memory 32Gi"),
        ('{"name": "nvidia", "memory": "32"}', "memory"),
        ('{"name": "nvidia", "cpu": "four"}', "cpu"),
        ('{"count": 2}', "name"),
    ],
)
def test_bad_pool_is_one_sentence(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        pool_named(text)
    assert "\n" not in str(error.value)


def test_pool_is_frozen() -> None:
    with pytest.raises(Invalid):
        POOLS["cpu"].count = 3  # type: ignore[misc]


@pytest.mark.parametrize(("text", "exponent"), [("3Mi", 20), ("3Gi", 30), ("3Ti", 40)])
def test_mebibytes(text: str, exponent: int) -> None:
    assert mebibytes(text) * 2**20 == 3 * 2**exponent
    assert math.log2(mebibytes(text) / 3) == exponent - 20


def test_json_of_a_pool_is_plain() -> None:
    assert json.loads(POOLS["eks"].model_dump_json())["tolerations"][0]["key"] == "nvidia.com/gpu"
