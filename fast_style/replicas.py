"""The devices that compute each training step together, in one process or in several.

Every replica holds all weights and computes its share of each batch; gradients are summed over all
of them by TensorFlow's collectives, so that all weights stay the same. Several processes must do
the same things in the same order: whatever only one of them knows, a signal or a loss of the
chief's, is first made known to all.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import signal
import socket
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from fast_style.cluster import Cluster, share_of
from fast_style.errors import ConfigError, FastStyleError
from fast_style.files import refusal

_log = logging.getLogger(__name__)

_JOIN_SECONDS = 600.0  # Queues can start processes minutes apart.
_LOOK_SECONDS = 1.0  # So long at a time, so that signals are looked at.
_KNOCK = b"fast-style 1"

# What TensorFlow raises when another process no longer answers.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.DeadlineExceededError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.UnknownError,
)


class Replicas:
    """The devices that train one net together.

    Attributes:
      cluster: The processes, and which of them this is.
      rows: Which rows of every batch this process computes.
      local: How many devices it has.
      count: How many devices there are in all processes.
      strategy: TensorFlow's; none for a single device.
    """

    def __init__(self, cluster: Cluster, rows: range, local: int, strategy: Any) -> None:
        """Takes over what `form_replicas` has found."""
        self.cluster = cluster
        self.rows = rows
        self.local = local
        self.count = local * cluster.size
        self.strategy = strategy
        self._total = tf.function(self._sum_of_first, autograph=False)

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Variables that are created in this block have a copy on each device."""
        return contextlib.nullcontext() if self.strategy is None else self.strategy.scope()

    def place(self) -> int:
        """Returns which of this process's devices computes; for use inside `strategy.run`."""
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        # Known while tracing, be it a constant of the graph or a plain number.
        known: Any = tf.get_static_value(tf.convert_to_tensor(number))
        return int(known) % self.local

    def gather(self, value: np.ndarray) -> np.ndarray:
        """Returns the values of all processes, in their order.

        Args:
          value: Of the same shape and type in all, any number type.

        Returns:
          [processes, ...].
        """
        if self.cluster.size == 1:
            return value[None]
        # As wide as can be: sums with zeros change nothing.
        wide = np.float64 if np.issubdtype(value.dtype, np.floating) else np.int64
        rows = np.zeros((self.cluster.size, *value.shape), wide)
        rows[self.cluster.index] = value
        return self._total(tf.constant(rows)).numpy().astype(value.dtype)

    def gather_rows(self, part: np.ndarray) -> np.ndarray:
        """Returns a whole batch from the parts of all processes."""
        return self.gather(part).reshape(-1, *part.shape[1:])

    def all(self, fine: bool) -> bool:
        """Returns whether something holds in every process."""
        return bool(self.gather(np.array(fine)).all())

    def take_over(self, variables: Sequence[tf.Variable]) -> None:
        """Gives variables the values that they have in the chief's process, in all."""
        if self.cluster.size == 1:
            return
        mine = [np.asarray(variable.numpy(), np.float64).ravel() for variable in variables]
        if not self.cluster.is_chief:
            mine = [np.zeros_like(values) for values in mine]
        ends = np.cumsum([len(values) for values in mine])[:-1]
        found = self._total(tf.constant(np.concatenate(mine))).numpy()
        for variable, values in zip(variables, np.split(found, ends), strict=True):
            shaped = values.reshape(variable.shape)
            variable.assign(shaped.astype(variable.dtype.as_numpy_dtype))

    def check_alike(self, facts: Mapping[str, Any]) -> None:
        """Checks that all processes are about to train the same.

        Args:
          facts: What has to agree, JSON-able, by the name under which a person knows it.

        Raises:
          ConfigError: If something differs; in every process alike.
        """
        sums = [zlib.crc32(json.dumps(value, sort_keys=True).encode()) for value in facts.values()]
        chief, *others = self.gather(np.array(sums, np.int64))
        problems = []
        for index, worker in enumerate(others, 1):
            names = [name for name, differs in zip(facts, worker != chief, strict=True) if differs]
            if names:
                problems.append(
                    f"{self.cluster.name(index)}: other than the chief's: {', '.join(names)}"
                )
        if problems:
            raise ConfigError("the workers would not train the same; make them agree", problems)

    @contextlib.contextmanager
    def contact(self) -> Iterator[None]:
        """Turns the loss of another process into one sentence.

        Raises:
          FastStyleError: If TensorFlow could not go on without it.
        """
        try:
            yield
        except _LOST as error:
            if self.cluster.size == 1:
                raise
            _log.debug("%s", error)
            raise FastStyleError(
                f"{self.cluster.name(self.cluster.index)}: lost contact with "
                f"{_whom(self.cluster, error)}; it has ended, failed or does not answer, so this "
                "worker ends too. Its own output says why; start all workers again to go on from "
                "the last checkpoint"
            ) from error

    def part(self) -> None:
        """Waits until all processes have come to their end.

        The chief writes until then, and nobody can do without the others. What goes wrong now goes
        wrong after everything is done.
        """
        if self.cluster.size > 1:
            with contextlib.suppress(tf.errors.OpError):
                self.all(True)

    def _sum_of_first(self, value: tf.Tensor) -> tf.Tensor:
        """Sums a value over the processes."""

        def one(value: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            # A copy, which is on the device that computes.
            mine = tf.identity(value) if self.place() == 0 else tf.zeros_like(value)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

        return self.first(self.strategy.run(one, args=(value,)))

    def first(self, values: Any) -> Any:
        """Returns what the first of this process's devices has computed."""
        return tf.nest.map_structure(
            lambda value: self.strategy.experimental_local_results(value)[0], values
        )


def form_replicas(cluster: Cluster, batch_size: int) -> Replicas:
    """Takes all GPUs of this machine, and waits for the other processes if there are any.

    Without a GPU the CPU computes; where it was divided into several logical devices, all of them.
    With other processes, it has to be called before TensorFlow has computed anything.

    Args:
      cluster: The processes.
      batch_size: Photos per step, over all processes and devices.

    Raises:
      ConfigError: If the devices would not get equal shares of a batch.
      FastStyleError: If the other processes cannot be reached.
    """
    if cluster.size > 1:
        gpus = len(tf.config.list_physical_devices("GPU"))
        local = max(1, gpus)
        rows = share_of(cluster, batch_size, local * cluster.size)
        return Replicas(cluster, rows, local, _join(cluster, gpus))
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    names = [device.name for device in devices]
    rows = share_of(cluster, batch_size, len(names))
    strategy = tf.distribute.MirroredStrategy(names) if len(names) > 1 else None
    return Replicas(cluster, rows, len(names), strategy)


def _join(cluster: Cluster, gpus: int) -> Any:
    """Returns the strategy of several processes, once all have come."""
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.workers)}),
        task_type="worker",
        task_id=cluster.index,
        num_accelerators={"GPU": gpus},
        rpc_layer="grpc",
    )
    _meet(cluster)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise FastStyleError(
            f"{cluster.name(cluster.index)}: cannot join the other workers ({refusal(error)}); "
            "check that no other program uses its port, and start all workers again"
        ) from error
    finally:
        _take_back_signals()


def _take_back_signals() -> None:
    """Undoes that TensorFlow, once several processes have met, takes SIGTERM and does nothing."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)  # What Python believes to be in force.
            if handler is not None:
                signal.signal(number, handler)


def _meet(cluster: Cluster) -> None:
    """Waits until every process is there, in a way that signals can end.

    TensorFlow waits too, for an hour and deaf to everything. So the others knock at the chief's
    door, the port that TensorFlow takes over a moment later, and all go on once all have knocked.

    Raises:
      FastStyleError: If somebody does not come, or the port is in use.
    """
    me = cluster.name(cluster.index)
    _log.info("%s of %d: waiting for the others", me, cluster.size)
    host, _, port = cluster.workers[0].rpartition(":")
    place = (host.strip("[]"), int(port))
    deadline = time.monotonic() + _JOIN_SECONDS
    with contextlib.ExitStack() as stack:
        if cluster.is_chief:
            silent = _open_door(place[1], cluster, stack, deadline)
        else:
            silent = [] if _knock(place, cluster.index, deadline) else [0]
    if silent:
        raise FastStyleError(
            f"{me}: {', '.join(map(cluster.name, silent))} did not come within "
            f"{_JOIN_SECONDS / 60:.0f} minutes; start one process for each address of TF_CONFIG, "
            "and open their ports"
        )


def _open_door(
    port: int, cluster: Cluster, stack: contextlib.ExitStack, deadline: float
) -> list[int]:
    """Lets all others in, and tells them to go on; returns who did not come."""
    try:
        door = stack.enter_context(socket.create_server(("", port)))
    except OSError as error:
        raise FastStyleError(
            f"{cluster.name(0)}: cannot use port {port} ({refusal(error)}); end what uses it or "
            "choose another one in TF_CONFIG"
        ) from error
    door.settimeout(_LOOK_SECONDS)
    come: dict[int, socket.socket] = {}
    while len(come) < cluster.size - 1:
        if time.monotonic() > deadline:
            return [index for index in range(1, cluster.size) if index not in come]
        with contextlib.suppress(OSError):  # Nobody yet, or one who left.
            guest, _ = door.accept()
            stack.enter_context(guest)
            guest.settimeout(_LOOK_SECONDS)
            said = guest.recv(len(_KNOCK) + 4)
            index = int.from_bytes(said[len(_KNOCK) :], "big")
            if said.startswith(_KNOCK) and 0 < index < cluster.size:
                come[index] = guest  # A process that was started again knocks again.
    for guest in come.values():
        with contextlib.suppress(OSError):
            guest.sendall(_KNOCK)
    return []


def _knock(place: tuple[str, int], index: int, deadline: float) -> bool:
    """Tells the chief who is there, until it answers; returns whether it did."""
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(place, _LOOK_SECONDS) as door:
            door.sendall(_KNOCK + index.to_bytes(4, "big"))
            door.settimeout(_LOOK_SECONDS)
            while time.monotonic() < deadline:
                try:
                    if door.recv(len(_KNOCK)) == _KNOCK:
                        return True
                    break  # It went away.
                except TimeoutError:
                    continue
        time.sleep(0.2)
    return False


def _whom(cluster: Cluster, error: Exception) -> str:
    """Names the process that an error of TensorFlow's is about."""
    found = [int(task) for task in re.findall(r"/task:(\d+)", str(error))]
    others = [task for task in found if task != cluster.index and task < cluster.size]
    if others:
        return cluster.name(others[0])
    if cluster.size == 2:
        return cluster.name(1 - cluster.index)
    # Who leads the others is not named when it is the one that does not answer.
    return "another worker" if cluster.is_chief else cluster.name(0)
