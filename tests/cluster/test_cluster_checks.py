"""What `vwl doctor` says of a real cluster: a head and two worker nodes, with a token."""

import json
from collections.abc import Iterator

import pytest

from tests.ray_cluster import NodeProcesses, free_port

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[NodeProcesses]:
    with NodeProcesses() as cluster:
        cluster.add_node()
        cluster.add_node()
        yield cluster


def doctor(cluster: NodeProcesses, *arguments: object, **more: str) -> tuple[int, list[dict]]:
    done = cluster.vwl("doctor", *arguments, "--json", **more)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def one(found: list[dict], check: str) -> dict:
    (finding,) = (finding for finding in found if finding["check"] == check)
    return finding


def test_every_node_is_looked_at(cluster, tmp_path):
    code, found = doctor(cluster, "--address", cluster.gcs, "--storage", tmp_path)
    wrong = [finding for finding in found if finding["grade"] == "error"]
    # memory and disk are this machine's affair
    assert [finding for finding in wrong if not finding["check"].startswith(("memory", "disk"))] == []
    assert code == bool(wrong)
    assert one(found, "cluster")["found"].endswith("on both sides")
    nodes = [finding["found"] for finding in found if finding["check"].startswith("node ")]
    assert sorted(line.split(",")[0] for line in nodes) == ["0 CPUs", "1 CPUs", "1 CPUs"]
    assert len([finding for finding in found if finding["check"].startswith("packages of ")]) == 3
    assert len([finding for finding in found if finding["check"].startswith("storage from ") and finding["grade"] == "ok"]) == 3
    assert one(found, "clocks")["grade"] == "ok"
    assert one(found, "CPU collective")["found"].startswith("gloo over 3 nodes, 16 MiB in ")
    assert list(tmp_path.iterdir()) == []


def test_an_address_for_submissions_is_tried_and_more_is_left_to_a_job(cluster):
    _, found = doctor(cluster, "--address", cluster.jobs)
    assert found[-1]["check"] == "submissions"
    assert found[-1]["grade"] == "ok"
    assert f"vwl submit --address {cluster.jobs} -- doctor" in found[-1]["found"]


@pytest.mark.parametrize("kind", ["gcs", "jobs"])
def test_a_wrong_token_is_an_error_with_the_way_out(cluster, kind):
    code, found = doctor(cluster, "--address", getattr(cluster, kind), RAY_AUTH_TOKEN="wrong")
    assert code == 1
    assert found[-1]["grade"] == "error"
    assert "refuses the token: set RAY_AUTH_TOKEN" in found[-1]["found"]


def test_a_dead_address_is_an_error(cluster):
    code, found = doctor(cluster, "--address", f"127.0.0.1:{free_port()}")
    assert code == 1
    assert found[-1]["found"].startswith("nothing answers at 127.0.0.1:")
