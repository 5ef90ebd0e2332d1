"""The metrics of a real run at Ray's endpoint, and the dashboard that queries them."""

import dataclasses
import json
import re
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from jobs import _cli, estimate, estimate_depth
from pipelines.engine import metrics
from pipelines.runs.runner import run_job
from tests.support.checkers import DEPLOY
from tests.support.fake_depth import FakeDepth
from tests.support.inputs import encoded_image, samples, write_tar
from tests.support.run_fake_job import identity

DASHBOARD = DEPLOY / "grafana" / "unicon.json"
WAIT_S = 60
JOB = "test_metrics"
"""A unique name, because the jobs of other tests run on the same cluster."""
NAMES = [*metrics.COUNTERS, *metrics.GAUGES]

Series = tuple[str, dict[str, str], float]
"""Name, labels, value."""


@pytest.fixture(scope="module")
def exported(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> list[Series]:
    """The series of the metrics of one run, from the endpoint of the node."""
    root = tmp_path_factory.mktemp("metrics")
    write_tar(root / "in" / "a.tar", [*samples(10), ("bad.jpg", encoded_image()[:400]), ("none.txt", b"x")])
    arguments = ["--input", str(root / "in"), "--output", str(root / "out"), "--chunk-size", "4"]
    options = estimate_depth.parse([*arguments, "--batch-size", "3"])
    task_run = estimate.task_run(options, identity("depth"), FakeDepth(delay_s=0.02))
    assert run_job(dataclasses.replace(task_run, job=JOB).as_job(), _cli.request_of(options)) == 0
    deadline = time.monotonic() + WAIT_S
    while True:
        found = series()
        named = {name for name, _, _ in found} >= {metrics.exported_name(name) for name in NAMES}
        if named and total(found, "samples_total", "publish") == 10 and total(found, "errors_total") == 2:
            return found  # every worker reports separately, some later than others
        assert time.monotonic() < deadline, f"after {WAIT_S} s only {found}"
        time.sleep(0.5)


def series() -> list[Series]:
    import ray

    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    text = urllib.request.urlopen(address, timeout=10).read().decode()
    lines = re.findall(r"^(ray_unicon_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE)
    found = [(name, dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)) for name, labels, value in lines]
    return [line for line in found if line[1]["job"] == JOB]


def total(found: list[Series], name: str, stage: str | None = None) -> float:
    """The sum of `ray_unicon_NAME` over all workers, for one stage or all of them."""
    return sum(
        value for name_, labels, value in found if name_ == f"ray_unicon_{name}" and stage in (None, labels["stage"])
    )


def test_a_run_exports_what_the_code_defines(exported: list[Series]) -> None:
    for stage in ("read", "model", "publish"):
        assert total(exported, "seconds_total", stage) > 0
    assert total(exported, "errors_total", "decode") == total(exported, "errors_total", "read") == 1
    assert 1 <= total(exported, "batch_size", "model") <= 3
    busy = [value for name, _, value in exported if name == "ray_unicon_model_busy_share"]
    assert busy and all(0 < value <= 1 for value in busy)


def test_the_dashboard_uses_labels_that_exist(exported: list[Series]) -> None:
    text = DASHBOARD.read_text()
    queried = {*re.findall(r"(\w+)=~", text), *re.findall(r"\{\{(\w+)\}\}", text)}
    queried |= {name.strip() for names in re.findall(r"by \(([^)]*)\)", text) for name in names.split(",")}
    queried |= {*re.findall(r"label_values\(\w+, (\w+)\)", text)}
    assert queried == {"job", "stage", "SessionName", "NodeAddress", "WorkerId"}
    assert [queried - labels.keys() for _, labels, _ in exported if not queried <= labels.keys()] == []


def panels() -> list[dict[str, Any]]:
    return json.loads(DASHBOARD.read_text())["panels"]


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel.get("targets", [])]


def test_the_dashboard_queries_the_metrics_of_the_code() -> None:
    queried = {name for query in queries() for name in re.findall(r"\bray_\w+", query)}
    assert queried == {metrics.exported_name(name) for name in NAMES}


def test_counters_are_queried_by_their_rate() -> None:
    for query in queries():
        for name in re.findall(r"ray_\w+_total", query):
            assert re.search(rf"(rate|increase)\({name}\{{", query), query
        assert query.count("(") == query.count(")") and query.count("{") == query.count("}")


def test_the_dashboard_is_valid_for_grafana() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["title"] and dashboard["uid"] and dashboard["schemaVersion"] >= 39
    assert len({panel["id"] for panel in panels()}) == len(panels())
    names = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = {name for query in queries() for name in re.findall(r"\$(\w+)", query)}
    assert used - {"__rate_interval", "__range"} <= names
    for panel in panels():
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 and panel["title"] and panel["description"]


def test_nothing_is_recorded_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(__import__("sys").modules, "ray", raising=False)
    monkeypatch.setattr(metrics, "_metric", None)
    metrics.add("unicon_samples", 1, "job", "publish")
    metrics.show("unicon_batch_size", 1, "job", "model")


def test_the_path_of_the_dashboard_is_in_the_manual() -> None:
    assert DASHBOARD.relative_to(DEPLOY).as_posix() in (DEPLOY / "README.md").read_text()
    assert Path(DASHBOARD).stat().st_size < 40_000
