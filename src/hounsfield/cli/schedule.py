"""`hounsfield schedule`: runs of a pipeline at fixed times on a cluster.

A schedule is a recurring run of Kubeflow Pipelines. The server keeps several of one name and cannot change one, so an
update makes another: first disabled, then the old is disabled, then the new enabled, then the old deleted. At no time
are two enabled; one that was interrupted is told by two of one name, and the same command completes it.
"""

import contextlib
import difflib
from datetime import UTC, datetime
from typing import Any

import click

from hounsfield.cli.submit import Target, Uploaded, cluster_inputs, upload
from hounsfield.errors import InputError
from hounsfield.pipelines.cron import Cron, parse_cron
from hounsfield.pipelines.placement import Cluster
from hounsfield.pipelines.server import Refused, Server

ENABLED = "ENABLED"
PAUSED_NOTE = "starts paused"


def run_schedule(
    task: str,
    cron: str,
    data: list[str],
    cases: str,
    settings: list[str],
    cluster: Cluster,
    target: Target,
    name: str = "",
    yes: bool = False,
) -> None:
    """Have `task` run at the times of `cron`; an existing schedule of that name is replaced after a question.

    Raises:
        InputError: inputs or cron cannot be used, the answer is no, or the server cannot be reached or refuses.
    """
    when = parse_cron(cron)
    inputs = cluster_inputs(task, data, cases, settings)
    server, uploaded = upload(task, cluster, target)
    name = name or task
    wanted: dict[str, Any] = {
        "experiment_id": uploaded.experiment, "cron_expression": when.text, "params": inputs, "no_catchup": True,
        "max_concurrency": 1, "pipeline_id": uploaded.version.pipeline_id, "version_id": uploaded.version.version_id,
        "service_account": target.service_account or None,
    }  # fmt: skip
    existing = server.schedules(name)
    if not existing:
        made = create(server, name, wanted, paused=False)
        announce(server, made, name, when, "created")
        return
    current = next((item for item in existing if item.status == ENABLED), existing[-1])
    paused = current.status != ENABLED and (len(existing) == 1 or PAUSED_NOTE in (existing[-1].description or ""))
    changes = differences(server, current, wanted, uploaded, target.experiment)
    if len(existing) > 1:
        changes.append(
            f"{len(existing)} schedules have this name, as an interrupted update leaves them: one will remain"
        )
    if not changes:
        announce(server, current.recurring_run_id, name, when, "unchanged, and paused" if paused else "unchanged")
        return
    print(f"schedule {name} exists and differs:")
    for line in changes:
        print(f"  {line}")
    confirm(f"replace schedule {name}?", yes)
    made = replace(server, name, existing, wanted, paused)
    announce(server, made, name, when, "replaced, and stays paused" if paused else "replaced")


def create(server: Server, name: str, wanted: dict[str, Any], paused: bool, enabled: bool = True) -> str:
    """Create a recurring run; its description keeps whether it is meant to be paused."""
    note = PAUSED_NOTE if paused else "starts enabled"
    made = server.client.create_recurring_run(
        job_name=name, description=f"hounsfield schedule; {note}", enabled=enabled and not paused, **wanted
    )
    return str(made.recurring_run_id)


def replace(server: Server, name: str, existing: list[Any], wanted: dict[str, Any], paused: bool) -> str:
    """Put a new recurring run in the place of `existing`; when the server fails, the old ones are as before.

    Raises:
        InputError: it failed; the message says so where the old state could not be restored either.
    """
    made = create(server, name, wanted, paused, enabled=False)
    running = [item.recurring_run_id for item in existing if item.status == ENABLED]
    try:
        for identifier in running:
            server.client.disable_recurring_run(identifier)
        if not paused:
            server.client.enable_recurring_run(made)
    except BaseException as error:
        try:
            server.delete_schedule(made)
            for identifier in running:
                server.client.enable_recurring_run(identifier)
        except InputError:
            raise InputError(
                f"the update of schedule {name} was interrupted ({error}), and it may be paused: run the same command "
                "again, which completes it"
            ) from error
        raise
    try:
        for item in existing:
            delete(server, item.recurring_run_id)
    except InputError as error:
        raise InputError(
            f"schedule {name} was replaced, but its old form is still there, paused ({error}): run the same command "
            "again, which deletes it"
        ) from error
    return made


def delete(server: Server, identifier: str) -> None:
    """Delete a recurring run that may be gone already."""
    try:
        server.delete_schedule(identifier)
    except Refused as error:
        if error.status != 404:
            raise


def differences(server: Server, current: Any, wanted: dict[str, Any], uploaded: Uploaded, experiment: str) -> list[str]:
    """What of the schedule on the server is not as wanted, a line each."""
    trigger = current.trigger.cron_schedule if current.trigger else None
    reference = current.pipeline_version_reference
    version = server.version_name(reference) if reference else "none"
    if reference and reference.pipeline_version_id == wanted["version_id"]:
        version = uploaded.version.name
    pairs = [
        ("cron", trigger.cron if trigger else "none", wanted["cron_expression"]),
        ("pipeline version", version, uploaded.version.name),
        ("experiment", server.experiment_name(current.experiment_id), experiment),
        ("service account", current.service_account or "", wanted["service_account"] or ""),
        ("catch-up", not current.no_catchup, False),
        ("concurrency", int(current.max_concurrency or 0), wanted["max_concurrency"]),
    ]
    before = (current.runtime_config.parameters if current.runtime_config else None) or {}
    after = wanted["params"]
    pairs += [(key, before.get(key, "default"), after.get(key, "default")) for key in sorted(before | after)]
    return [f"{label}: {old} -> {new}" for label, old, new in pairs if old != new]


def confirm(question: str, yes: bool) -> None:
    """Ask, unless `yes`.

    Raises:
        InputError: the answer is no, or nobody is there to answer.
    """
    try:
        agreed = yes or click.confirm(question)
    except click.Abort as error:
        raise InputError(f"{question} nobody answered: give --yes") from error
    if not agreed:
        raise InputError("nothing was changed")


def announce(server: Server, identifier: str, name: str, when: Cron, what: str) -> None:
    """Print what became of the schedule, when it runs next and where it is."""
    print(f"schedule {name}: {what}")
    if "paused" in what:
        print(f"  resume    hounsfield schedule --resume {name}")
    else:
        print(f"  next run  {when.next_after(datetime.now(UTC)):%Y-%m-%d %H:%M} UTC")
    print(f"  schedule  {server.link('recurringrun', identifier)}", flush=True)


def list_schedules(target: Target) -> None:
    """Print the schedules of the namespace, a line each."""
    server = Server(target.host, target.namespace)
    found = server.schedules()
    if not found:
        print("no schedules")
        return
    rows = [("schedule", "pipeline version", "cron (seconds first)", "state", "next run (UTC)")]
    versions: dict[str, str] = {}
    for item in found:
        reference = item.pipeline_version_reference
        key = reference.pipeline_version_id if reference else ""
        versions[key] = versions.get(key) or server.version_name(reference)
        trigger = item.trigger.cron_schedule if item.trigger else None
        enabled, following = item.status == ENABLED, "-"
        if trigger and enabled:
            with contextlib.suppress(InputError):
                following = f"{parse_cron(trigger.cron).next_after(datetime.now(UTC)):%Y-%m-%d %H:%M}"
        cron = trigger.cron if trigger else "an interval"
        rows.append((item.display_name, versions[key], cron, "enabled" if enabled else "paused", following))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    for name in sorted({row[0] for row in rows if [other[0] for other in rows].count(row[0]) > 1}):
        print(f"several schedules are named {name}: an update was interrupted; the same command again completes it")


def pause(target: Target, name: str) -> None:
    """Disable the schedule `name`."""
    server = Server(target.host, target.namespace)
    for item in named(server, name):
        server.client.disable_recurring_run(item.recurring_run_id)
    print(f"schedule {name}: paused; runs that were started go on")


def resume(target: Target, name: str) -> None:
    """Enable the schedule `name`; times that passed meanwhile are not made up for, but for the latest.

    Raises:
        InputError: several have that name.
    """
    server = Server(target.host, target.namespace)
    found = named(server, name)
    if len(found) > 1:
        raise InputError(
            f"{len(found)} schedules are named {name}, as an interrupted update leaves them: run hounsfield schedule "
            "TASK --cron again, which completes it"
        )
    server.client.enable_recurring_run(found[0].recurring_run_id)
    print(f"schedule {name}: enabled")


def remove(target: Target, name: str, yes: bool) -> None:
    """Delete the schedule `name` after a question."""
    server = Server(target.host, target.namespace)
    found = named(server, name)
    confirm(f"delete schedule {name}?", yes)
    for item in found:
        delete(server, item.recurring_run_id)
    print(f"schedule {name}: deleted; runs that were started go on")


def named(server: Server, name: str) -> list[Any]:
    """The schedules called `name`.

    Raises:
        InputError: there is none; the nearest name is given.
    """
    found = server.schedules(name)
    if not found:
        known = sorted({item.display_name for item in server.schedules()})
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known) or 'none'}"
        raise InputError(f"no schedule {name}: {hint}")
    return found
