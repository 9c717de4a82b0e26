"""Searches on Katib against a server that speaks the Kubernetes API: whole runs, restarts, causes of failure."""

import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from katib_api import Ended, KatibApi, Trainer, has
from katib_server import serving
from katib_trials import by_alpha, trained
from s3_server import ACCESS, BUCKET, SECRET
from slice_sets import make_slices

from hounsfield import remote
from hounsfield.components.tune import __main__ as command
from hounsfield.components.tune import on_katib
from hounsfield.components.tune.config import Config
from hounsfield.components.tune.run import run
from hounsfield.data.slice_set import DETECTION, SEGMENTATION
from hounsfield.errors import InputError, Preempted, TrainingError
from hounsfield.katib.client import Cluster
from hounsfield.katib.experiment import Budget, Place, Training, search
from hounsfield.katib.follow import Outcome, Waiting, carry_out
from hounsfield.pool import POOLS
from hounsfield.search.objective import Objective
from hounsfield.search.space import space_for
from hounsfield.search.study import Trial, preemptible

SPACE = space_for("lung-tumour")
AP = Objective("average_precision")
CALM, QUICK = Waiting(patience=5.0, poll=0.01), Waiting(patience=1.0, poll=0.01)
WAITED_FOR = {"nodes", "pods_allowed", "image_exists", "suggests"}
"""Faults that a cluster may get over by itself, so that they are given time."""


@pytest.fixture
def katib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., KatibApi]]:
    """Starts a cluster with the given faults; this process finds it by its kube-config."""
    for name in ("KUBERNETES_SERVICE_HOST", "HOUNSFIELD_POOL", "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setattr(on_katib, "Waiting", lambda patience: partial(Waiting, poll=0.01)(patience=min(patience, 5.0)))
    opened: list[AbstractContextManager[KatibApi]] = []

    def start(trains: Trainer | None = None, token: str = "", **faults: Any) -> KatibApi:
        api = KatibApi(trains or trained(by_alpha), **faults)
        opened.append(serving(api, tmp_path / "kubeconfig", **({"token": token} if token else {})))
        return opened[-1].__enter__()

    yield start
    for server in opened:
        server.__exit__(None, None, None)


def experiment(trials: int = 4, parallel: int = 2, pool: str = "gke", failures: int = 0) -> dict[str, Any]:
    training = Training("lung-tumour", "hounsfield.components.train_unet", "s3://b/slices", "hash", AP, {"epochs": 2})
    place = Place("hounsfield", "registry.example.org/training:1", POOLS[pool])
    return search(training, SPACE, "random", 0, Budget(trials, parallel, failures), place)


def carried_out(made: dict[str, Any] | None = None, waiting: Waiting = CALM, keep: bool = True) -> Outcome:
    def decode(texts: dict[str, str]) -> dict[str, Any]:
        return SPACE.decode(texts)

    seen: list[Sequence[Trial]] = []
    cluster = Cluster("hounsfield")
    return carry_out(cluster, made or experiment(), POOLS["gke"], AP, decode, seen.append, waiting, keep)


@contextmanager
def terminated_when(ready: Callable[[], bool]) -> Iterator[None]:
    """Send this process SIGTERM once `ready`."""

    def kill() -> None:
        while not ready():
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=kill)
    thread.start()
    yield
    thread.join()


def test_whole_search_gives_the_artifact_of_an_embedded_one(
    katib: Callable[..., KatibApi], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api = katib()
    slices = make_slices(tmp_path / "slices", SEGMENTATION)
    config = Config(backend="katib", trials=9, repeats=3, parallel_trials=2)
    given = {"epochs": "2", "seed": 5, "augment": True}
    text = run(config, slices, json.dumps(given), tmp_path / "out", slices_uri="minio://mlpipeline/v2/slices")
    best = json.loads((tmp_path / "out" / "best.json").read_text())
    rows = pq.read_table(tmp_path / "out" / "trials.parquet").to_pylist()
    assert json.loads(text) == best["parameters"]
    assert [row["number"] for row in rows] == list(range(9))
    assert {row["state"] for row in rows} == {"complete"}
    assert rows[0]["param_loss"] == "cl", "the given parameters are tried first"
    assert best["value"] == max(row["val_average_precision"] for row in rows)
    assert best["value"] >= rows[0]["objective"] == pytest.approx(0.9 - 0.05)
    assert best["backend"] == "katib"
    repeats = best["repeats"]
    assert [item["seed"] for item in repeats["trainings"]] == [5, 6, 7]
    assert repeats["mean"] == pytest.approx(best["value"] - 0.01)
    assert (tmp_path / "out" / "figures" / "history.svg").is_file()
    assert len(api.objects["experiments"]) == 3, "the given parameters, the search, the repeats"
    assert all(has(item, "Succeeded") for item in api.objects["experiments"].values())
    for pod in api.objects["pods"].values():
        script = pod["spec"]["containers"][0]["args"][0]
        assert "--slices=minio://mlpipeline/v2/slices" in script
        assert {"--epochs=2", "--augment"} <= set(script.split())
    printed = capsys.readouterr().out
    assert re.search(r"^Katib Experiment lung-tumour-[0-9a-f]{12} in namespace hounsfield: created$", printed, re.M)
    assert re.search(r"^trial 8: average_precision=0\.\d{4} in \d+\.\d s \(", printed, re.M)
    assert re.search(r"^progress tune 11/11 best average_precision=0\.\d{4}; 0 running, 0 failed$", printed, re.M)
    assert re.search(r"^best_val_average_precision_mean=0\.\d{4}$", printed, re.M)


def test_search_of_l3_maximises_f1_and_records_its_inverse(katib: Callable[..., KatibApi], tmp_path: Path) -> None:
    katib(trained(lambda config: 0.5 + config.class_weight * 0 + 0.001 * config.batch_size))
    slices = make_slices(tmp_path / "slices", DETECTION)
    config = Config(backend="katib", task="l3-slice", trials=4, space="control", algorithm="tpe")
    best = json.loads(run(config, slices, "{}", tmp_path / "out", slices_uri="s3://b/s"))
    rows = pq.read_table(tmp_path / "out" / "trials.parquet").to_pylist()
    assert (best["oversampling_rate"], best["class_weight"]) == (0, 1)
    assert best["batch_size"] == max(row["param_batch_size"] for row in rows)
    assert all(row["value"] == pytest.approx(1 / row["objective"]) for row in rows)


def test_bayesian_suggestions_in_katibs_encoding_beat_their_random_start(
    katib: Callable[..., KatibApi], tmp_path: Path
) -> None:
    katib()
    slices = make_slices(tmp_path / "slices", SEGMENTATION)
    config = Config(backend="katib", trials=14, parallel_trials=1, start_from_given=False)
    run(config, slices, "{}", tmp_path / "out", slices_uri="s3://b/s")
    scores = [row["objective"] for row in pq.read_table(tmp_path / "out" / "trials.parquet").to_pylist()]
    start, later = scores[:7], scores[7:]
    assert sum(later) / len(later) > sum(start) / len(start)
    assert max(later) > 0.8


def test_command_reads_and_writes_s3_and_gives_trials_the_same_location(
    katib: Callable[..., KatibApi], tmp_path: Path, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"AWS_ENDPOINT_URL": s3_endpoint, "AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
    for name, value in (values | {"AWS_DEFAULT_REGION": "us-east-1"}).items():
        monkeypatch.setenv(name, value)
    api = katib()
    slices = f"s3://{BUCKET}/katib/slices"
    remote.upload(make_slices(tmp_path / "slices", SEGMENTATION), slices)
    out = f"s3://{BUCKET}/katib/tuning"
    command.work(command.Arguments(backend="katib", trials=3, algorithm="tpe", slices=slices, out=out))
    assert remote.exists(f"{out}/trials.parquet")
    scripts = [pod["spec"]["containers"][0]["args"][0] for pod in api.objects["pods"].values()]
    assert len(scripts) == 3
    assert all(f"--slices={slices} " in script for script in scripts)


def test_restarted_step_adopts_the_running_experiment(
    katib: Callable[..., KatibApi], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api = katib()
    slices = make_slices(tmp_path / "slices", SEGMENTATION)
    config = Config(backend="katib", trials=6, algorithm="random", start_from_given=False)
    step = partial(run, config, slices, "{}", tmp_path / "out", slices_uri="s3://b/s")
    with terminated_when(lambda: len(api.objects["trials"]) >= 3), pytest.raises(Preempted):
        step()
    assert not (tmp_path / "out").exists()
    assert len(api.objects["experiments"]) == 1, "the Experiment is left running"
    before = list(api.objects["trials"])
    step()
    created = [request for request in api.requests if request[0] == "create"]
    assert len(created) == 1
    assert list(api.objects["trials"])[: len(before)] == before
    printed = capsys.readouterr().out
    assert "goes on: the same step adopts it" in printed
    assert "found, going on with it" in printed
    posted = len(api.requests)
    step()
    assert [verb for verb, _ in api.requests[posted:]].count("create") == 0, "a finished Experiment is adopted too"


def test_preempted_trials_are_retried_and_count_as_interruptions(katib: Callable[..., KatibApi]) -> None:
    api = katib()
    train = api.trains
    api.trains = lambda words, attempt: Ended(75) if attempt < 4 else train(words, attempt)
    outcome = carried_out(experiment(trials=2), Waiting(5, 0.01))
    assert not outcome.failure
    assert [trial.interruptions for trial in outcome.trials] == [5, 5]


@pytest.mark.parametrize(
    ("ended", "cause"),
    [
        (Ended(3, message="error: the loss became NaN in epoch 3\n"), "the loss became NaN in epoch 3"),
        (Ended(4), "out of memory: lower the batch size"),
        (Ended(2), "bad input"),
        (Ended(137, reason="OOMKilled"), "killed for want of memory: raise the memory of the pool"),
        (Ended(1, message="ValueError: x"), "ValueError: x"),
        (Ended(printed="val_f1=0.9\n"), "no usable metric came from its log"),
        (Ended(printed="val_average_precision=nan\n"), "no usable metric came from its log"),
    ],
)
def test_trials_that_fail_end_the_search_with_the_first_cause(
    katib: Callable[..., KatibApi], ended: Ended, cause: str
) -> None:
    api = katib(lambda words, attempt: ended)
    outcome = carried_out(experiment(trials=4, failures=2), Waiting(5, 0.01))
    assert outcome.failure.startswith(
        f"{len(outcome.trials)} of {len(outcome.trials)} trials failed, the first: {cause}"
    )
    assert "kubectl describe experiment lung-tumour-" in outcome.failure
    expected = 3 if ended.code == 1 else 1
    assert len(api.objects["pods"]) == expected * len(outcome.trials), "only a crash is retried"


def test_causes_survive_the_end_of_the_pods(katib: Callable[..., KatibApi]) -> None:
    api = katib(lambda words, attempt: Ended(4))
    carried_out(experiment(trials=2), Waiting(5, 0.01))
    api.objects["pods"].clear()
    name = next(iter(api.objects["experiments"]))
    outcome_rows = on_katib_rows(name)
    assert {trial.cause.split(":")[0] for trial in outcome_rows} == {"out of memory"}


def on_katib_rows(name: str) -> list[Trial]:
    from hounsfield.katib.trials import rows

    cluster = Cluster("hounsfield")
    return rows(cluster.trials(name), cluster.pods(name), AP, SPACE.decode)


def test_failed_experiment_is_replaced_by_the_next_call(katib: Callable[..., KatibApi]) -> None:
    api = katib(lambda words, attempt: Ended(3))
    assert carried_out(waiting=Waiting(5, 0.01)).failure
    api.trains = trained(by_alpha)
    assert not carried_out().failure
    assert [verb for verb, _ in api.requests].count("delete") == 1


def test_too_many_failed_trials_fail_the_step(katib: Callable[..., KatibApi], tmp_path: Path) -> None:
    katib(lambda words, attempt: Ended(3, message="error: the loss became NaN"))
    slices = make_slices(tmp_path / "slices", SEGMENTATION)
    with pytest.raises(TrainingError, match="trials failed, the first: the loss became NaN"):
        run(Config(backend="katib", trials=6), slices, "{}", tmp_path / "out", slices_uri="s3://b/s")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("faults", "sentence"),
    [
        (
            {"has_katib": False},
            "this cluster has no Katib, or no namespace hounsfield .*: install Katib, or set backend",
        ),
        ({"namespaces": ()}, r'no namespace hounsfield \(namespaces "hounsfield" not found\)'),
        ({"forbidden": (("create", "experiments"),)}, "forbids to create experiments .* ServiceAccount hounsfield-pip"),
        ({"forbidden": (("list", "pods"),)}, "forbids to list pods .* Role hounsfield-pipelines"),
        ({"experiments_allowed": 0}, "no room for the search .*exceeded quota.*raise its ResourceQuota"),
        ({"token": "expired"}, "refused the credentials .*token has expired"),
        ({"nodes": False}, "no trial began.*: no node of pool gke .*gke-accelerator=nvidia-l4; choose another pool"),
        ({"pods_allowed": 0}, "no trial began.*ResourceQuota leaves no room .*lower parallel_trials"),
        ({"image_exists": False}, "cannot start .ImagePullBackOff.*check image, registry and secrets"),
        ({"webhook": False}, "label the namespace katib.kubeflow.org/metrics-collector-injection=enabled"),
        ({"pod_security": True, "suggests": False}, "pod security refuses pods .*katib-config"),
        ({"suggests": False}, "Katib has made no trial yet.*no suggestion service"),
    ],
)
def test_what_the_cluster_lacks_is_said_and_nothing_stays_behind(
    katib: Callable[..., KatibApi], faults: dict[str, Any], sentence: str
) -> None:
    api = katib(**faults)
    with pytest.raises(InputError, match=sentence) as caught:
        carried_out(waiting=QUICK if WAITED_FOR & set(faults) else CALM)
    assert "\n" not in str(caught.value)
    assert not api.objects["experiments"], "it was deleted"


def test_what_could_not_be_deleted_is_named(katib: Callable[..., KatibApi]) -> None:
    katib(forbidden=(("list", "events"), ("delete", "experiments")))
    with pytest.raises(
        InputError, match=r"forbids to list events.*still there.*kubectl delete experiment lung-tumour-"
    ):
        carried_out()


def test_token_that_expires_ends_the_step_but_not_the_search(katib: Callable[..., KatibApi]) -> None:
    def expire(api: KatibApi) -> None:
        if len(api.objects["trials"]) == 2:
            api.token = "another"

    api = katib(before_step=expire)
    with pytest.raises(InputError, match=r"refused the credentials.*it goes on: run the step again to adopt it"):
        carried_out()
    assert len(api.objects["experiments"]) == 1


def test_an_experiment_that_katib_refuses_is_said(katib: Callable[..., KatibApi]) -> None:
    katib()
    made = experiment()
    made["spec"]["parallelTrialCount"] = 9
    with pytest.raises(InputError, match=r"Katib refused the Experiment: .*parallelTrialCount above maxTrialCount"):
        carried_out(made)


def test_short_outages_are_waited_for_and_long_ones_end_the_step_but_not_the_search(
    katib: Callable[..., KatibApi], capsys: pytest.CaptureFixture[str]
) -> None:
    def outage(api: KatibApi) -> None:
        if len(api.objects["trials"]) == 2:
            api.failing_requests, api.before_step = 5, lambda api: None

    api = katib(before_step=outage)
    assert not carried_out(waiting=Waiting(5, 0.01)).failure
    assert "warning: the Kubernetes API cannot" in capsys.readouterr().out
    other = experiment(trials=5)

    def down(api: KatibApi) -> None:
        api.failing_requests = 10**6 if len(api.of("trials", other["metadata"]["name"])) else 0

    api.before_step = down
    with pytest.raises(InputError, match=r"HTTP 503.*was begun, it goes on: run the step again"):
        carried_out(other, QUICK)
    api.failing_requests, api.before_step = 0, lambda api: None
    assert len(carried_out(other).trials) == 5


def test_no_server_is_one_sentence(
    katib: Callable[..., KatibApi], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    katib()
    text = (tmp_path / "kubeconfig").read_text()
    (tmp_path / "kubeconfig").write_text(re.sub(r"127.0.0.1:\d+", "127.0.0.1:1", text))
    with pytest.raises(InputError, match=r"Kubernetes API at http://127\.0\.0\.1:1 does not answer"):
        carried_out()
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    with pytest.raises(InputError, match=r"no cluster to search on .*set KUBECONFIG, or set backend to embedded"):
        Cluster("hounsfield")


def test_experiment_that_somebody_deletes(katib: Callable[..., KatibApi]) -> None:
    def vanish(api: KatibApi) -> None:
        if len(api.objects["trials"]) == 2:
            api.delete(next(iter(api.objects["experiments"])))

    katib(before_step=vanish)
    with pytest.raises(InputError, match="somebody deleted Experiment"):
        carried_out()


def test_clean_up_on_request(katib: Callable[..., KatibApi]) -> None:
    api = katib()
    outcome = carried_out(keep=False)
    assert len(outcome.trials) == 4
    assert not any(api.objects[kind] for kind in ("experiments", "trials", "pods"))


def test_sigterm_during_the_creation_leaves_nothing_unknown(katib: Callable[..., KatibApi]) -> None:
    api = katib()
    with terminated_when(lambda: bool(api.requests)), pytest.raises(Preempted), preemptible():
        carried_out(waiting=Waiting(60, 0.5))
    assert len(carried_out(waiting=Waiting(5, 0.01)).trials) == 4


@pytest.mark.parametrize(
    ("config", "slices", "sentence"),
    [
        ({"strategy": "greedy"}, "s3://b/s", "strategy greedy is not for Katib.*set backend to embedded"),
        ({}, "", "trials on a cluster cannot read .*s3:// location"),
    ],
)
def test_what_katib_cannot_search(
    katib: Callable[..., KatibApi], tmp_path: Path, config: dict[str, Any], slices: str, sentence: str
) -> None:
    katib()
    local = make_slices(tmp_path / "slices", SEGMENTATION)
    with pytest.raises(InputError, match=sentence):
        run(Config(backend="katib", trials=3, **config), local, "{}", tmp_path / "out", slices_uri=slices)


def test_without_katibs_client_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubeflow.katib", None)
    pinned = (Path(__file__).parents[1] / "images" / "katib-client.txt").read_text().split()
    with pytest.raises(InputError, match=rf"needs Katib's client .*pip install --no-deps {' '.join(pinned)}"):
        Cluster("hounsfield")
