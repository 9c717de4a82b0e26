"""Compiles pipelines to the YAML that the Kubeflow UI and `kfp.Client` take."""

from pathlib import Path

from kfp import compiler

from hounsfield.errors import InputError
from hounsfield.pipelines.catalog import PIPELINES


def compile_all(out: Path, names: list[str]) -> list[Path]:
    """Write `OUT/NAME.yaml` for every pipeline in `names`; returns the paths.

    Raises:
        InputError: an unknown name, or `out` cannot be written.
    """
    unknown = [name for name in names if name not in PIPELINES]
    if unknown:
        raise InputError(f"no pipeline {', '.join(unknown)}: expected {' or '.join(PIPELINES)}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        paths = []
        for name in names:
            partial = out / f".{name}.partial.yaml"
            compiler.Compiler().compile(PIPELINES[name], str(partial))
            paths.append(partial.rename(out / f"{name}.yaml"))
    except OSError as error:
        raise InputError(f"cannot write output {out}: {error.strerror}: choose a writable --out") from error
    return paths
