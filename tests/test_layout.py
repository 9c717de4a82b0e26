"""The installed package is the tree on disk."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "hounsfield": "src/hounsfield",
    "hounsfield.components": "components",
    "hounsfield.pipelines": "pipelines",
    "hounsfield.registry": "mlflow/registry",
}


def test_packages_in_pyproject_are_those_on_disk() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = set()
    for package, folder in FOLDERS.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join([package, *init.parent.relative_to(ROOT / folder).parts]))
    assert listed == found


def test_mlflow_folder_does_not_shadow_mlflow() -> None:
    assert not (ROOT / "mlflow" / "__init__.py").exists()


@pytest.mark.parametrize("folder", sorted(path.name for path in (ROOT / "components").iterdir() if path.is_dir()))
def test_every_component_has_the_same_files(folder: str) -> None:
    if folder == "__pycache__":
        return
    expected = {"__init__.py", "__main__.py", "component.py", "config.py", "run.py", "README.md"}
    assert expected <= {path.name for path in (ROOT / "components" / folder).iterdir()}
