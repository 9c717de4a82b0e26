"""`python -m hounsfield.components.tune.render`: the Experiments of both tasks as files for `kubectl apply -f`."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from hounsfield.components.images import TRAINING_IMAGE
from hounsfield.components.tune.on_katib import MODULES
from hounsfield.katib.experiment import Algorithm, Budget, Place, Training, search
from hounsfield.pool import pool_named
from hounsfield.search.objective import OWN, Objective
from hounsfield.search.space import space_for
from hounsfield.step import StepConfig, command_line


class Arguments(StepConfig):
    """Write a Katib Experiment per task, lung-tumour.yaml and l3-slice.yaml, for use without pipelines."""

    out: str = Field(description="folder of the files")
    slices: str = Field(
        "s3://hounsfield/slices", description="prefix of the slice sets: PREFIX/lung-tumour and PREFIX/l3-slice"
    )
    image: str = Field(TRAINING_IMAGE, description="full reference of the training image")
    pool: str = Field("nvidia", description="nodes of the trials: nvidia, gke, eks, cpu, or the JSON of a pool")
    namespace: str = Field("hounsfield", description="namespace of the Experiments")
    algorithm: Algorithm = Field("bayesianoptimization", description="Katib's algorithm")
    trials: int = Field(30, ge=1, description="trials of each search")
    parallel_trials: int = Field(2, ge=1, description="trials at once")
    trial_hours: float = Field(24.0, gt=0, description="hours after which a trial fails, waiting for nodes included")
    search_seed: int = Field(0, ge=0, description="seed of the search")


class Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, lists indented."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
        return super().increase_indent(flow, False)


def _text(dumper: Dumper, text: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Dumper.add_representer(str, _text)


def rendered(arguments: Arguments) -> dict[str, str]:
    """The files by name."""
    place = Place(arguments.namespace, arguments.image, pool_named(arguments.pool), arguments.trial_hours)
    files = {}
    for task, module in MODULES.items():
        slices = f"{arguments.slices.rstrip('/')}/{task}"
        training = Training(task, module, slices, slices, Objective(OWN[task]))
        budget = Budget(arguments.trials, arguments.parallel_trials)
        experiment = search(training, space_for(task), arguments.algorithm, arguments.search_seed, budget, place)
        files[f"{task}.yaml"] = yaml.dump(experiment, Dumper=Dumper, sort_keys=False, width=120)
    return files


def work(arguments: Arguments) -> None:
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    for name, text in rendered(arguments).items():
        (out / name).write_text(text, encoding="utf-8")
        print(out / name)


if __name__ == "__main__":
    command_line(Arguments, work, "python -m hounsfield.components.tune.render")
