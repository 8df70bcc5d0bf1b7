"""Which process of a training cluster this is, as the usual TF_CONFIG says."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fast_style.errors import ConfigError

_VARIABLE = "TF_CONFIG"
_JOBS = ("chief", "worker")  # In the order in which their tasks are numbered.
_EXAMPLE = '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}'


@dataclass(frozen=True)
class Cluster:
    """The processes that train one net together, and which of them this is.

    Attributes:
      workers: Address of each, 'host:port'; empty or a single one for a process on its own. The
        first is the chief, which alone writes files and reports.
      index: This process's place among them.
    """

    workers: tuple[str, ...] = ()
    index: int = 0

    @property
    def size(self) -> int:
        """How many processes there are, at least 1."""
        return max(1, len(self.workers))

    @property
    def is_chief(self) -> bool:
        """Whether this process writes and reports."""
        return self.index == 0

    def name(self, index: int) -> str:
        """Names a worker for a person, with its address."""
        chief = ", the chief" if index == 0 else ""
        return f"worker {index} ({self.workers[index]}{chief})"


ALONE = Cluster()
"""A process that trains without others."""


def find_cluster(environment: Mapping[str, str] = os.environ) -> Cluster:
    """Reads TF_CONFIG: a JSON object of `cluster`, the addresses by job, and `task`, this process.

    Jobs are `worker` and, if wanted, one `chief`, which then comes first.

    Args:
      environment: The process's environment.

    Returns:
      The cluster; `ALONE` without TF_CONFIG, or if it names no cluster.

    Raises:
      ConfigError: If it says something else.
    """
    text = environment.get(_VARIABLE, "").strip()
    if not text:
        return ALONE
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"expected JSON such as {_EXAMPLE}, got {text[:100]!r}") from error
    if not isinstance(found, dict):
        raise _wrong(f"expected a JSON object such as {_EXAMPLE}, got {text[:100]!r}")
    if not found.get("cluster"):
        return ALONE
    jobs = _jobs(found["cluster"])
    task = found.get("task")
    if not isinstance(task, dict):
        raise _wrong(f"task: expected which process this is, as in {_EXAMPLE}, got {task!r}")
    job, index = task.get("type"), task.get("index")
    if job not in jobs:
        raise _wrong(f"task: expected a type of {', '.join(jobs)}, got {job!r}")
    # Launchers that fill in a template write the number as text.
    if isinstance(index, str) and index.isdecimal():
        index = int(index)
    count = len(jobs[job])
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < count:
        raise _wrong(f"task: expected an index of 0 to {count - 1} for {job}, got {index!r}")
    before = len(jobs.get("chief", ())) if job == "worker" else 0
    workers = tuple(address for name in _JOBS for address in jobs.get(name, ()))
    return Cluster(workers, before + index)


def _jobs(given: Any) -> dict[str, list[str]]:
    """Checks the addresses by job."""
    if not isinstance(given, dict):
        raise _wrong(f"cluster: expected addresses by job as in {_EXAMPLE}, got {given!r}")
    unknown = [job for job in given if job not in _JOBS]
    if unknown:
        raise _wrong(
            f"cluster: training has the jobs {' and '.join(_JOBS)}, got {', '.join(unknown)}; "
            "remove what is not one of these"
        )
    for job, addresses in given.items():
        fine = isinstance(addresses, list) and all(_is_address(value) for value in addresses)
        if not fine or not addresses:
            raise _wrong(f"cluster: {job}: expected a list of HOST:PORT, got {addresses!r}")
    if len(given.get("chief", ())) > 1:
        raise _wrong(f"cluster: chief: expected one address, got {len(given['chief'])}")
    every = [address for addresses in given.values() for address in addresses]
    twice = sorted({address for address in every if every.count(address) > 1})
    if twice:
        raise _wrong(f"cluster: every process needs an address of its own, got {twice[0]} twice")
    return given


def _is_address(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    host, _, port = value.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 65536


def _wrong(problem: str) -> ConfigError:
    return ConfigError(f"environment variable {_VARIABLE}", [problem])


def share_of(cluster: Cluster, batch_size: int, replicas: int) -> range:
    """Returns which rows of every batch a process computes.

    Args:
      cluster: The process and the others.
      batch_size: Photos per step, over all processes and devices.
      replicas: How many devices compute a step, over all processes; each process has as many.

    Raises:
      ConfigError: If the devices would not get equal shares.
    """
    if batch_size % replicas:
        devices = replicas // cluster.size
        where = f"{devices} devices" if devices > 1 else "1 device"
        if cluster.size > 1:
            where = f"{cluster.size} workers with {where} each"
        advice = "" if devices == 1 else ", or show fewer GPUs with CUDA_VISIBLE_DEVICES"
        more = -(-batch_size // replicas) * replicas
        raise ConfigError(
            "the run's configuration",
            [
                f"batch_size: {batch_size} photos of each step do not divide equally among "
                f"{where}; set it to a multiple of {replicas}, such as {more}{advice}"
            ],
        )
    rows = batch_size // cluster.size
    return range(cluster.index * rows, (cluster.index + 1) * rows)
