from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from fast_style.cluster import ALONE, Cluster, find_cluster, share_of
from fast_style.errors import ConfigError

TWO = ["one.example:2222", "two.example:2222"]


def tf_config(cluster: Any, task: Any) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


@pytest.mark.parametrize("text", ["", "  ", "{}", '{"cluster": {}}'])
def test_without_a_cluster_a_process_trains_alone(text: str) -> None:
    assert find_cluster({"TF_CONFIG": text}) == ALONE
    assert find_cluster({}) == ALONE
    assert ALONE.is_chief and ALONE.size == 1


def test_the_first_worker_is_the_chief() -> None:
    first = find_cluster(tf_config({"worker": TWO}, {"type": "worker", "index": 0}))
    assert first == Cluster(tuple(TWO), 0) and first.is_chief
    second = find_cluster(tf_config({"worker": TWO}, {"type": "worker", "index": "1"}))
    assert second == Cluster(tuple(TWO), 1) and not second.is_chief
    assert second.name(0) == "worker 0 (one.example:2222, the chief)"


def test_a_chief_of_its_own_comes_before_the_workers() -> None:
    jobs = {"worker": TWO, "chief": ["zero.example:1"]}
    assert find_cluster(tf_config(jobs, {"type": "worker", "index": 0})).index == 1
    chief = find_cluster(tf_config(jobs, {"type": "chief", "index": 0}))
    assert (chief.index, chief.workers[0]) == (0, "zero.example:1")


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"TF_CONFIG": "worker 1"}, "expected JSON such as"),
        ({"TF_CONFIG": "[1]"}, "expected a JSON object such as"),
        (tf_config({"ps": TWO}, {}), "training has the jobs chief and worker, got ps"),
        (tf_config({"worker": "a:1"}, {}), "worker: expected a list of HOST:PORT, got 'a:1'"),
        (tf_config({"worker": ["a:b"]}, {}), "expected a list of HOST:PORT"),
        (tf_config({"worker": ["a:1", "a:1"]}, {}), "an address of its own, got a:1 twice"),
        (tf_config({"chief": TWO}, {}), "chief: expected one address, got 2"),
        (tf_config({"worker": TWO}, None), "task: expected which process this is"),
        (tf_config({"worker": TWO}, {"type": "ps"}), "task: expected a type of worker, got 'ps'"),
        (
            tf_config({"worker": TWO}, {"type": "worker", "index": 2}),
            "task: expected an index of 0 to 1 for worker, got 2",
        ),
    ],
)
def test_what_tf_config_gets_wrong_is_told(environment: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match="environment variable TF_CONFIG: 1 problem") as caught:
        find_cluster(environment)
    assert told in str(caught.value)


def test_the_shares_of_all_processes_make_the_batch() -> None:
    shares = [share_of(Cluster(("a:1", "b:1", "c:1"), i), 12, 6) for i in range(3)]
    assert np.concatenate(shares).tolist() == list(range(12))


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size: 4 photos") as caught:
        share_of(ALONE, 4, 8)
    assert "among 8 devices; set it to a multiple of 8, such as 8, or show fewer GPUs" in str(
        caught.value
    )
    with pytest.raises(ConfigError, match="2 workers with 1 device each.* such as 6"):
        share_of(Cluster(("a:1", "b:1")), 5, 2)
