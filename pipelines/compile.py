"""Compiles pipelines to the YAML that the Kubeflow UI and `kfp.Client` take."""

import re
from pathlib import Path
from typing import Any

from kfp import compiler
from kfp.compiler.compiler_utils import KubernetesManifestOptions

from hounsfield.errors import InputError
from hounsfield.pipelines.catalog import PIPELINES
from hounsfield.pipelines.placement import Cluster, on_cluster


def compile_all(out: Path, names: list[str], cluster: Cluster | None = None, kubernetes: bool = False) -> list[Path]:
    """Write `OUT/NAME.yaml` for every pipeline in `names`; returns the paths.

    Args:
        cluster: places the steps; without one the pipelines stay plain, as `kfp.local` runs them.
        kubernetes: write `OUT/NAME.kubernetes.yaml` as well, a Pipeline and a PipelineVersion for `kubectl apply` on a
            KFP that keeps its pipelines in Kubernetes; the version is named after the tag of the images.

    Raises:
        InputError: an unknown name, `out` cannot be written, or `kubernetes` without a cluster.
    """
    unknown = [name for name in names if name not in PIPELINES]
    if unknown:
        raise InputError(f"no pipeline {', '.join(unknown)}: expected {' or '.join(PIPELINES)}")
    if kubernetes and cluster is None:
        raise InputError("Kubernetes resources describe pipelines on a cluster: give the cluster")
    try:
        out.mkdir(parents=True, exist_ok=True)
        paths = []
        for name in names:
            pipeline = on_cluster(PIPELINES[name], cluster) if cluster else PIPELINES[name]
            paths.append(_write(pipeline, out / f"{name}.yaml"))
            if cluster and kubernetes:
                options = _resources(name, pipeline, cluster)
                path = out / f"{name}.kubernetes.yaml"
                paths.append(
                    _write(pipeline, path, kubernetes_manifest_format=True, kubernetes_manifest_options=options)
                )
    except OSError as error:
        raise InputError(f"cannot write output {out}: {error.strerror}: choose a writable --out") from error
    return paths


def _write(pipeline: Any, path: Path, **options: Any) -> Path:
    partial = path.with_name(f".{path.stem}.partial.yaml")
    compiler.Compiler().compile(pipeline, str(partial), **options)
    return partial.rename(path)


def _resources(name: str, pipeline: Any, cluster: Cluster) -> KubernetesManifestOptions:
    return KubernetesManifestOptions(
        pipeline_name=name,
        pipeline_display_name=pipeline.pipeline_spec.pipeline_info.display_name,
        pipeline_version_name=f"{name}-{re.sub('[^a-z0-9]+', '-', cluster.tag.lower()).strip('-')}",
        pipeline_version_display_name=cluster.tag,
        namespace=cluster.namespace,
        include_pipeline_manifest=True,
    )
