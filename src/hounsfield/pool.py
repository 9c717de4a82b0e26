"""The nodes that trainings run on: a pool's resources, scheduling and shared memory as plain Kubernetes dictionaries.

A pool is named (`nvidia`, `gke`, `eks`, `cpu`) or given as JSON, of which `name` may be one of these: the other keys
then replace fields of that profile, as in `{"name": "gke", "count": 2, "memory": "64Gi"}`.
"""

import json
import re
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hounsfield.errors import InputError

USER = 10001
"""Numeric user and group of every image."""

RESTRICTED_POD: dict[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""Security context of a pod under the pod security standard "restricted"."""

RESTRICTED_CONTAINER: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
"""Security context of a container under the pod security standard "restricted", with a read-only root besides."""

CPU_QUANTITY = r"^([0-9]+(\.[0-9]+)?|[1-9][0-9]*m)$"
MEMORY_QUANTITY = r"^[1-9][0-9]*(Mi|Gi|Ti)$"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Toleration(_Frozen):
    """A taint of nodes that a pod accepts."""

    key: str
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = "NoSchedule"

    def as_dict(self) -> dict[str, str]:
        """The toleration as Kubernetes takes it."""
        return self.model_dump(exclude={"value"} if self.operator == "Exists" else None)


class Pool(_Frozen):
    """Nodes for trainings, and what one training takes of a node."""

    name: str = Field(min_length=1, description="name of the profile")
    accelerator: str = Field(default="nvidia.com/gpu", description="resource name of the accelerator; empty for none")
    count: int = Field(default=1, ge=0, le=16, description="accelerators of one training")
    node_selector: dict[str, str] = Field(default={}, description="labels that a node of the pool carries")
    tolerations: tuple[Toleration, ...] = Field(default=(), description="taints of the pool's nodes")
    shm: str = Field(default="8Gi", pattern=MEMORY_QUANTITY, description="size of /dev/shm; part of memory")
    cpu: str = Field(default="4", pattern=CPU_QUANTITY, description="CPUs of one training")
    memory: str = Field(
        default="32Gi", pattern=MEMORY_QUANTITY, description="memory of one training, /dev/shm included"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.accelerator) != bool(self.count):
            raise ValueError("accelerator and count go together: give both, or an empty accelerator and count 0")
        if mebibytes(self.shm) >= mebibytes(self.memory):
            raise ValueError(f"shm {self.shm} is part of memory {self.memory} and must be smaller")
        return self

    def resources(self) -> dict[str, dict[str, str]]:
        """Requests and limits of a training's container. They are equal: such pods are the last to be evicted."""
        wanted = {"cpu": self.cpu, "memory": self.memory}
        if self.count:
            wanted[self.accelerator] = str(self.count)
        return {"requests": dict(wanted), "limits": wanted}

    def scheduling(self) -> dict[str, Any]:
        """`nodeSelector` and `tolerations` of a training's pod."""
        return {
            "nodeSelector": dict(self.node_selector),
            "tolerations": [toleration.as_dict() for toleration in self.tolerations],
        }

    def shm_volume(self) -> dict[str, Any]:
        """The volume at /dev/shm: memory of the pod, so that it counts in its memory limit."""
        return {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": self.shm}}

    def shm_mount(self) -> dict[str, str]:
        """Where the container of a training mounts `shm_volume`."""
        return {"name": "shm", "mountPath": "/dev/shm"}


def mebibytes(quantity: str) -> int:
    """Mebibytes of a memory quantity in Mi, Gi or Ti.

    Raises:
        ValueError: another unit.
    """
    if not re.match(MEMORY_QUANTITY, quantity):
        raise ValueError(f"expected a quantity in Mi, Gi or Ti, came {quantity!r}")
    return int(quantity[:-2]) * {"Mi": 1, "Gi": 1024, "Ti": 1024**2}[quantity[-2:]]


_NVIDIA_TAINT = Toleration(key="nvidia.com/gpu")

POOLS: dict[str, Pool] = {
    "nvidia": Pool(
        name="nvidia", node_selector={"nvidia.com/gpu.present": "true"}, tolerations=(_NVIDIA_TAINT,)
    ),  # label of NVIDIA's GPU feature discovery, part of its GPU operator
    "gke": Pool(
        name="gke", node_selector={"cloud.google.com/gke-accelerator": "nvidia-l4"}, tolerations=(_NVIDIA_TAINT,)
    ),  # GKE puts the label and the taint on every node with an accelerator
    "eks": Pool(
        name="eks",
        node_selector={"eks.amazonaws.com/instance-gpu-manufacturer": "nvidia"},
        tolerations=(_NVIDIA_TAINT,),
    ),  # label of EKS Auto Mode; its node pools for accelerators carry the taint
    "cpu": Pool(name="cpu", accelerator="", count=0, shm="512Mi", cpu="1", memory="4Gi"),
}
"""The profiles: NVIDIA's GPU operator anywhere, GKE, EKS Auto Mode, and no accelerator (kind, minikube)."""


def pool_named(text: str) -> Pool:
    """The pool of a profile's name or of JSON; JSON whose `name` is a profile replaces fields of that profile.

    Raises:
        InputError: neither of them; names the profiles, or the field that does not fit.
    """
    if not text.lstrip().startswith("{"):
        if text not in POOLS:
            raise InputError(f"no pool {text!r}: expected {', '.join(POOLS)} or the JSON of a pool")
        return POOLS[text]
    try:
        given = json.loads(text)
    except ValueError as error:
        raise InputError(f"pool: expected {', '.join(POOLS)} or the JSON of a pool, came {text!r}: {error}") from error
    profile = POOLS.get(str(given.get("name")))
    try:
        return Pool.model_validate((profile.model_dump() if profile else {}) | given)
    except ValidationError as error:
        said = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'pool'}: {item['msg']} (came: {item['input']!r})"
            for item in error.errors(include_url=False)
        )
        raise InputError(f"pool {text}: {said}") from error
