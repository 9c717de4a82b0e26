"""Versions of a registered model and their aliases: `challenger` is the newest, `champion` the one in use."""

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from hounsfield.registry import history

CHAMPION, CHALLENGER = history.CHAMPION, "challenger"
FIRST_CHAMPION = "first_champion"
"""Tag of the registered model: the version that became champion by being the first."""


MODEL_HASH = "model_hash"
"""Tag of a version: SHA-256 of its weights file."""


def find(name: str, model_hash: str, run_id: str = "") -> ModelVersion | None:
    """The newest version of `name` with these weights, if there is one; with `run_id`, of that run only."""
    only = f" and run_id='{run_id}'" if run_id else ""
    versions = MlflowClient().search_model_versions(f"name='{name}' and tags.`{MODEL_HASH}`='{model_hash}'{only}")
    return max(versions, key=lambda version: int(version.version), default=None)


def register(
    name: str, model_uri: str, model_id: str, run_id: str, tags: dict[str, str], description: str
) -> ModelVersion:
    """Register a logged model as the next version of `name` with its tags and description."""
    client = MlflowClient()
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return client.create_model_version(
        name, model_uri, run_id=run_id, tags=tags, description=description, model_id=model_id
    )


def assign_aliases(name: str, version: int, step: str = "") -> None:
    """Make the newest version the challenger and, when `name` never had a champion, its first version the champion.

    The challenger stays when it is `version` or newer.

    Safe against registrations at the same time: all of them choose the same first version, and an older version never
    takes the challenger from a newer one. A champion that was taken away on purpose is not replaced here.
    """
    client = MlflowClient()
    model = client.get_registered_model(name)
    holder = int(model.aliases.get(CHALLENGER, 0))
    if holder < version:
        # Read again after the own write: whoever writes last has then seen all versions.
        while holder != (newest := max(numbers(name))):
            history.write(client.set_registered_model_alias, name, CHALLENGER, str(newest))
            holder = int(client.get_registered_model(name).aliases.get(CHALLENGER, 0))
        model = client.get_registered_model(name)
    moved = {event.key for event in history.read_events(model.tags)} - {history.FIRST_KEY}
    if CHAMPION not in model.aliases and FIRST_CHAMPION not in model.tags and not moved:
        first = min(numbers(name))
        history.move(name, first, history.FIRST, "the first version of its name", step=step)
        history.write(client.set_registered_model_tag, name, FIRST_CHAMPION, str(first))


def numbers(name: str) -> list[int]:
    """The numbers of all versions of `name`."""
    return [int(item.version) for item in MlflowClient().search_model_versions(f"name='{name}'")]


def aliases_of(name: str, version: int) -> list[str]:
    """The aliases that `version` has now."""
    now = MlflowClient().get_registered_model(name).aliases
    return sorted(alias for alias, holder in now.items() if int(holder) == version)
