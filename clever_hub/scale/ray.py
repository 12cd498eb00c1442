"""The Ray engine: shards are computed by actors on a cluster, each of which holds the model.

A task is the number of a shard. Its actor reads the shard's plan, embeds, writes the shard itself,
and returns a row for the manifest. Computing a shard twice gives the same file, so that a worker or
a node may die at any moment: Ray runs the task again elsewhere.

Ray's own writing of parquet is not used: it names files at random, so that tasks that run twice
leave their rows twice, and stores vectors in a type of its own.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clever_hub.backends.variants import DATA_NAME, GRAPH_NAME
from clever_hub.config import CONFIG_NAME
from clever_hub.errors import CleverError, ConfigError, missing_extra
from clever_hub.scale.shards import Finished, check_shard, finish_shard
from clever_hub.scale.storage import open_storage
from clever_hub.threads import available_cores
from clever_hub.weights import WEIGHTS_NAME

if TYPE_CHECKING:
    from clever_hub.jobs.answering import JobsMixin
    from clever_hub.scale.engine import Engine
    from clever_hub.scale.settings import Run
    from clever_hub.scale.storage import Storage

CPUS = 2  # of an actor; with less, Ray hangs on small nodes, and decoding has no thread beside
_FILES = (CONFIG_NAME, WEIGHTS_NAME, GRAPH_NAME, DATA_NAME)
_DONE = ("revision", "precision", "calibration", "threads")


def compute(
    storage: Storage,
    run: Run,
    how: Engine,
    model: JobsMixin,
    advance: Callable[[int], None],
    *,
    address: str | None = None,
    actors: int | None = None,
) -> Iterator[Finished]:
    """Compute the shards that are missing, on a cluster.

    Args:
        storage: The folder of shards; every node must reach it by the same path or address.
        run: What is to be computed.
        how: How actors load the model.
        model: The loaded model, whose files are sent to the actors.
        advance: Called with how many more images are done.
        address: Of the cluster, such as ``"auto"``; None starts one on this machine, or takes the
            one that is connected already.
        actors: Most actors, each with two CPUs; None takes what the cluster has.

    Yields:
        What became of each shard.

    Raises:
        MissingExtraError: When Ray is not installed.
        ConfigError: When the cluster has no node with two CPUs.
    """
    missing = []
    for number, there in enumerate(_checked(storage, run)):
        if there is None:
            missing.append({"shard": number})
            continue
        advance(there.images)
        yield there
    if not missing:
        return
    with _connected(address) as ray:
        on_gpu = str(how.options.get("device") or "cpu").startswith("cuda")
        most = _room(ray) if actors is None else actors
        tasks = ray.data.from_items(missing, override_num_blocks=len(missing))
        finished = tasks.map_batches(
            _Worker,
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=CPUS,
            num_gpus=1 if on_gpu else None,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(most, len(missing))),
            fn_constructor_args=(
                ray.put(_files_of(model)),
                _everywhere(storage),
                (str(Path.cwd()), *run.folders),
                run,
                how,
            ),
        )
        try:
            for row in finished.iter_rows():
                advance(row["images"])
                yield Finished(**row)
        except ray.exceptions.RayError as error:
            raise CleverError(_reason(error)) from error


def _checked(storage: Storage, run: Run) -> Iterator[Finished | None]:
    """What is there of each shard. Most of the time is spent waiting for a remote storage."""
    with ThreadPool(storage.threads) as pool:
        yield from pool.imap(partial(check_shard, storage, made=run.made), range(run.shards))


class _Worker:
    """An actor: it holds the model, and computes one shard after the other."""

    def __init__(
        self, files: Any, root: str, folders: tuple[str, ...], run: Run, how: Engine
    ) -> None:
        import ray

        # Ray may kill an actor, and then nothing would clear up: its files go once they are read.
        with tempfile.TemporaryDirectory(
            prefix="clever-hub-", ignore_cleanup_errors=True
        ) as folder:
            content = ray.get(files) if isinstance(files, ray.ObjectRef) else files
            for name, data in content.items():
                Path(folder, name).write_bytes(data)
            # What was sent is the very variant and revision that was loaded; an actor sees one GPU.
            kept = {k: v for k, v in how.options.items() if k not in _DONE}
            device = kept.pop("device", None)
            kept["device"] = "cuda" if str(device).startswith("cuda") else device
            there = replace(how, model=folder, options={**kept, "threads": CPUS})
            self._model, self._run, self._how = there.load(), run, how
        self._storage, self._folders = open_storage(root), folders

    def __call__(self, batch: Any) -> Any:
        import pyarrow as pa

        rows = [
            finish_shard(
                self._storage,
                number,
                self._model,
                self._run.made,
                num_workers=self._how.num_workers or CPUS,
                image_column=self._run.image_column,
                folders=self._folders,
            )._asdict()
            for number in batch["shard"].to_pylist()
        ]
        return pa.Table.from_pylist(rows)


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Ray with a cluster; one that was started or joined here is left at the end."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ray.data warns about its own future
            import ray
            import ray.data
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or "ray", "ray") from error
    ours = not ray.is_initialized()
    if ours:
        own: Any = {} if address else {"num_cpus": max(CPUS, available_cores())}
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"--address: no Ray cluster at {address!r}: {error}. Start one: ray start --head"
            ) from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


def _room(ray: Any) -> int:
    """How many actors the cluster has room for."""
    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    room = sum(int(cpus // CPUS) for cpus in nodes)
    if not room:
        # Ray itself would wait for ever, and say nothing.
        raise ConfigError(
            f"the Ray cluster: expected a node with {CPUS} CPUs at least, got {nodes}"
        )
    return room


def _files_of(model: JobsMixin) -> dict[str, bytes]:
    """The files of a loaded model, by name: nodes need not reach its folder."""
    assert model.source is not None  # it was loaded
    folder: Path = getattr(model, "folder", model.source.path)
    return {name: (folder / name).read_bytes() for name in _FILES if (folder / name).is_file()}


def _everywhere(storage: Storage) -> str:
    """The folder of shards by a name that does not depend on the working directory."""
    return storage.root if "://" in storage.root else str(Path(storage.root).absolute())


def _reason(error: Exception) -> str:
    """The message of what failed in an actor, without Ray's frames."""
    cause: BaseException = error
    while (inner := getattr(cause, "cause", None) or cause.__cause__) is not None:
        cause = inner
    return (
        str(cause) if isinstance(cause, CleverError) else f"a task on the cluster failed: {cause}"
    )
