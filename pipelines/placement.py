"""Where the steps of a pipeline run on a cluster, what they may use there and what happens when they fail.

`on_cluster` traces a pipeline again and sets on each task its image, resources, retries, time limit, security context,
volumes and environment. Trainings go to the nodes of a pool, all other steps never do.

Retries. KFP's only retry setting is a count with back-off; it cannot tell exit codes apart, so a step that fails for a
reason that no retry cures is tried again too. That costs minutes: bad input (2) shows at once, and a training that
diverges (3) or runs out of memory (4) goes on from its last checkpoint, not from its beginning. Trainings and searches
get more retries, for preemption, with a constant wait: a wait that grows helps against a server that is overloaded, not
against a node that is gone, for which the scheduler queues. The workflow engine counts `backoff_max_duration` from the
start of the first attempt, waiting for a node included: KFP's own value of an hour would end longer trainings and never
retry them, so the window here spans all attempts. KFP's launcher does not wait for a step that is told to end, so a
preempted training goes on from its last regular checkpoint, a minute back at most.

Security. KFP itself drops all capabilities, forbids privilege escalation and sets the RuntimeDefault seccomp profile;
it takes user, group and non-root from here and has no setting for `fsGroup` and a read-only root file system.
KFP also keeps Istio's sidecar off the pods.
"""

import functools
import inspect
import math
from typing import Any, NamedTuple

from kfp import dsl, kubernetes
from kfp.dsl.graph_component import GraphComponent
from kfp.dsl.pipeline_channel import PipelineChannel
from kfp.dsl.pipeline_context import Pipeline
from pydantic import BaseModel, ConfigDict, Field, field_validator

from hounsfield.components.data_version.component import data_version
from hounsfield.components.images import CPU_IMAGE, TRAINING_IMAGE, reference, tag_of
from hounsfield.pool import MEMORY_QUANTITY, POOLS, RESTRICTED_POD, Pool, pool_named
from hounsfield.surroundings import (
    CHECKPOINTS,
    CONFIG_MAP,
    DATASETS,
    MLFLOW,
    PSEUDONYM_KEY,
    PSEUDONYM_SECRET,
    S3_KEYS,
    S3_SECRET,
    S3_SETTINGS,
)

HOUR = 3600
QUEUE = 24 * HOUR
"""Seconds that a task may wait for nodes, beside its attempts."""


class Cluster(BaseModel):
    """How pipelines are put on a cluster."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    registry: str = Field(
        "",
        pattern=r"^([a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*/?)?$",
        description="registry and folder of the images, such as registry.example.org/team",
    )
    tag: str = Field(
        tag_of(CPU_IMAGE),
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$",
        description="tag of the images; it stands for the code in KFP's cache, so new code needs a new tag",
    )
    pool: Pool = Field(POOLS["nvidia"], description="nodes of the trainings; a name or JSON text is looked up")
    embedded_search: bool = Field(
        False, description="search parameters inside the step tune, on the pool, instead of by Katib trials"
    )
    pull_secret: str = Field("", description="Secret with the registry's credentials; empty for none")
    scratch: str = Field("64Gi", pattern=MEMORY_QUANTITY, description="most that a step may write to /tmp")
    namespace: str = Field(
        "hounsfield",
        pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        description="namespace of Pipeline and PipelineVersion resources",
    )

    @field_validator("tag")
    @classmethod
    def _fixed(cls, tag: str) -> str:
        if tag == "latest":
            raise ValueError("latest names another image every time: give the tag of a build")
        return tag

    @field_validator("pool", mode="before")
    @classmethod
    def _named(cls, pool: Any) -> Any:
        return pool_named(pool) if isinstance(pool, str) else pool

    @property
    def cpu_image(self) -> str:
        """Full reference of the image of all steps but trainings."""
        return reference(CPU_IMAGE, self.registry, self.tag)

    @property
    def training_image(self) -> str:
        """Full reference of the image of trainings."""
        return reference(TRAINING_IMAGE, self.registry, self.tag)


class Step(NamedTuple):
    """What a step gets when it does not run on the pool.

    CPUs are (request, limit), memory is both; hours are the limit of one attempt; the wait before a retry, a minute at
    first, is multiplied by `backoff` each time (the workflow engine takes whole numbers only). A step is cached when
    its outputs follow from its inputs and it changes nothing outside of the run.
    """

    title: str = ""
    cpu: tuple[str, str] = ("500m", "2")
    memory: str = "4Gi"
    hours: int = 6
    retries: int = 2
    backoff: float = 2.0
    cached: bool = False


STEPS = {
    "data-version": Step("Look for changed data", memory="1Gi", hours=1),
    "plan-ingest": Step("Divide the ingest", cpu=("1", "4"), cached=True),
    "dicom-ingest": Step("Ingest DICOM", cpu=("2", "4"), memory="8Gi", hours=24, cached=True),
    "merge-stores": Step("Merge the shards", cached=True),
    "update-dataset": Step("Ingest what is new", cpu=("2", "4"), memory="8Gi", hours=24),
    "window-convert": Step("Window and split", cpu=("1", "4"), memory="8Gi", cached=True),
    "plan-experiment": Step("Plan the trainings", cached=True),
    "plan-retraining": Step("Decide whether to retrain", hours=1),
    "tune": Step("Search parameters", hours=14 * 24, retries=6, backoff=1.0, cached=True),
    "train-unet": Step("Train U-Net", hours=48, retries=8, backoff=1.0, cached=True),
    "train-l3": Step("Train L3 detector", hours=48, retries=8, backoff=1.0, cached=True),
    "evaluate-pr-ap": Step("Evaluate on unseen patients", cpu=("2", "4"), memory="8Gi", cached=True),
    "summarise-experiment": Step("Summarise the experiment", cached=True),
    "compare-models": Step("Compare with the champion", cpu=("2", "4"), memory="8Gi"),
    "register-model": Step("Register in MLflow", hours=1),
}
"""By component; one that is not listed gets the defaults of `Step`."""

INGESTS = {"plan-ingest", "dicom-ingest", "update-dataset"}
"""Steps that make pseudonyms."""
TRAININGS = {"train-unet", "train-l3"}
SEARCHES = {"tune", "plan-experiment"}
"""Steps that train themselves when the search is embedded."""


def on_cluster(pipeline: Any, cluster: Cluster) -> GraphComponent:
    """`pipeline` with every task placed on `cluster`; `pipeline` itself stays as it is.

    A pipeline with the input `data_version` gets a first task that works it out, so that ingest can be cached. The
    default of `code_version` becomes the tag of the images, which hold the code.
    """
    function = pipeline.pipeline_func
    signature = inspect.signature(function)

    @functools.wraps(function)
    def placed(*args: Any, **kwargs: Any) -> Any:
        inputs = signature.bind(*args, **kwargs).arguments
        if "data_version" in inputs:
            looked = data_version(data=inputs["data"], cases=inputs["cases"], given=inputs["data_version"])
            inputs["data_version"] = looked.output
        outputs = function(**inputs)
        for task in Pipeline.get_default_pipeline().tasks.values():
            place(task, cluster)
        return outputs

    placed.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[
            item.replace(default=cluster.tag) if name == "code_version" else item
            for name, item in signature.parameters.items()
        ]
    )
    info = pipeline.pipeline_spec.pipeline_info
    return dsl.pipeline(
        placed,
        name=info.name,
        display_name=info.display_name or None,
        pipeline_config=pipeline.pipeline_config,
    )


def place(task: Any, cluster: Cluster) -> None:
    """Set everything on one task of a pipeline that is being traced.

    Raises:
        TypeError: the task is a nested pipeline, whose own tasks cannot be reached any more.
    """
    if task.container_spec is None:
        raise TypeError(f"{task.name} is a nested pipeline: call the function that adds its tasks instead")
    name = task.component_spec.name
    step = STEPS.get(name, Step())
    trains = name in TRAININGS or (cluster.embedded_search and name in SEARCHES)
    task.set_display_name(step.title or name)
    task.set_container_image(cluster.training_image if trains else cluster.cpu_image)
    task.set_caching_options(task._task_spec.enable_caching and step.cached and known_data(task))
    limited(task, step)
    if trains:
        on_pool(task, cluster.pool)
    else:
        on_cpu(task, step)
    confined(task, cluster)
    informed(task, name)
    if name == "tune" and not cluster.embedded_search:
        task.set_env_variable("HOUNSFIELD_POOL", cluster.pool.model_dump_json())
        task.set_env_variable("HOUNSFIELD_TRAINING_IMAGE", cluster.training_image)
        if cluster.pull_secret:
            task.set_env_variable("HOUNSFIELD_PULL_SECRET", cluster.pull_secret)
        kubernetes.use_field_path_as_env(task, env_name="HOUNSFIELD_NAMESPACE", field_path="metadata.namespace")


def known_data(task: Any) -> bool:
    """Whether KFP's cache key shows what the task reads.

    Artifacts are in the key by their identity. Data behind a location is not: only a `data_version` that a task of
    the same run worked out stands for it, not one that a user typed, or left as it was, in an earlier run.
    """
    if "data_version" not in (task.component_spec.inputs or {}):
        return True
    version = task.inputs.get("data_version")
    return isinstance(version, PipelineChannel) and version.task_name is not None


def limited(task: Any, step: Step) -> None:
    """Retries with back-off, and a time limit for each attempt."""
    seconds = step.hours * HOUR
    task.set_retry(
        num_retries=step.retries,
        backoff_duration="60s",
        backoff_factor=step.backoff,
        backoff_max_duration=f"{(step.retries + 1) * seconds + QUEUE}s",
    )
    kubernetes.set_timeout(task, seconds)


def on_pool(task: Any, pool: Pool) -> None:
    """Resources, nodes and shared memory of a training."""
    resources = pool.resources()
    task.set_cpu_request(resources["requests"]["cpu"]).set_cpu_limit(resources["limits"]["cpu"])
    task.set_memory_request(resources["requests"]["memory"]).set_memory_limit(resources["limits"]["memory"])
    task.set_env_variable("OMP_NUM_THREADS", threads(resources["limits"]["cpu"]))
    if pool.count:
        task.set_accelerator_type(pool.accelerator).set_accelerator_limit(pool.count)
    scheduling = pool.scheduling()
    for label, value in scheduling["nodeSelector"].items():
        kubernetes.add_node_selector(task, label_key=label, label_value=value)
    for toleration in scheduling["tolerations"]:
        kubernetes.add_toleration(task, **toleration)
    kubernetes.empty_dir_mount(
        task,
        volume_name=pool.shm_volume()["name"],
        mount_path=pool.shm_mount()["mountPath"],
        medium="Memory",
        size_limit=pool.shm,
    )


def on_cpu(task: Any, step: Step) -> None:
    """Resources of a step that does not train."""
    request, limit = step.cpu
    task.set_cpu_request(request).set_cpu_limit(limit)
    task.set_memory_request(step.memory).set_memory_limit(step.memory)
    task.set_env_variable("OMP_NUM_THREADS", threads(limit))


def threads(cpu: str) -> str:
    """Threads for a CPU limit; without it numerical libraries take one for each CPU of the node."""
    return str(math.ceil(float(cpu[:-1]) / 1000 if cpu.endswith("m") else float(cpu)))


def confined(task: Any, cluster: Cluster) -> None:
    """User, group and scratch space, and the registry's credentials by reference."""
    kubernetes.set_security_context(
        task,
        run_as_user=RESTRICTED_POD["runAsUser"],
        run_as_group=RESTRICTED_POD["runAsGroup"],
        run_as_non_root=RESTRICTED_POD["runAsNonRoot"],
    )
    kubernetes.empty_dir_mount(task, volume_name="tmp", mount_path="/tmp", size_limit=cluster.scratch)
    if cluster.pull_secret:
        kubernetes.set_image_pull_secrets(task, [cluster.pull_secret])


def informed(task: Any, name: str) -> None:
    """Environment of a step: addresses from the ConfigMap, credentials from Secrets, all by reference.

    A step that makes pseudonyms gets their key, and does not start without it: with a key of its own every run would
    split the patients anew. A missing MLflow address, checkpoint or data set location keeps the pod from
    starting too, with a message that names the key. The settings of S3 may be absent, and so may its keys,
    where the cloud gives pods an identity.
    """
    task.set_env_variable("PYTHONUNBUFFERED", "1")
    kubernetes.use_config_map_as_env(task, CONFIG_MAP, {key: key for key in (MLFLOW, CHECKPOINTS, DATASETS)})
    kubernetes.use_config_map_as_env(task, CONFIG_MAP, {key: key for key in S3_SETTINGS}, optional=True)
    kubernetes.use_secret_as_env(task, S3_SECRET, {key: key for key in S3_KEYS}, optional=True)
    if name in INGESTS:
        kubernetes.use_secret_as_env(task, PSEUDONYM_SECRET, {PSEUDONYM_KEY: PSEUDONYM_KEY})
