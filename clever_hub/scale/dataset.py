"""Embed a data set: plan it, compute what is missing of it, shard by shard, and join it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from clever_hub.errors import ConfigError, DataError, require
from clever_hub.images.encoding import check_batches
from clever_hub.images.finding import check_not_input
from clever_hub.images.options import LoadOptions
from clever_hub.images.progress import counting
from clever_hub.pretrained import fastest_backend
from clever_hub.scale.engine import Engine
from clever_hub.threads import available_cores, check_threads

if TYPE_CHECKING:
    from clever_hub.backends.int8 import Calibration
    from clever_hub.jobs.answering import JobsMixin
    from clever_hub.scale.places import Places
    from clever_hub.scale.planning import Changes
    from clever_hub.scale.settings import Run
    from clever_hub.scale.shards import Finished
    from clever_hub.scale.storage import Storage
    from clever_hub.scale.target import Target

RUN_NAME = "_clever_hub/run.json"
SHARD_SIZE = 4096
_MOST_SKIPPED = 1000
_MOST_NAMED = 5
Inputs: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]"


@dataclass(frozen=True)
class Summary:
    """What was done.

    Attributes:
        output: The folder or the file.
        images: Images in all.
        rows: How many have a row.
        computed: How many of the rows were computed now; the others were there.
        skipped: Path and reason of those that cannot be read, the first thousand.
        changes: What had changed since the folder was made; None for a new one.
        updated: Whether these changes were made.
    """

    output: str
    images: int
    rows: int
    computed: int
    skipped: list[tuple[str, str]] = field(default_factory=list)
    changes: Changes | None = None
    updated: bool = False


def embed_dataset(  # noqa: PLR0913  # each is an option of the verb
    model: str | os.PathLike[str],
    inputs: Inputs,
    output: str | os.PathLike[str],
    *,
    engine: Literal["local", "ray"] = "local",
    update: bool = False,
    prune: bool = False,
    backend: str = "auto",
    precision: Literal["float32", "int8"] = "float32",
    calibration: Calibration = None,
    device: str | None = None,
    revision: str | None = None,
    threads: int | None = None,
    num_workers: int | None = None,
    batch_size: int = 32,
    normalize: bool = False,
    decode: Literal["exact", "reduced"] = "exact",
    color_management: bool = False,
    background: str | tuple[int, int, int] | None = None,
    shard_size: int | None = None,
    image_column: str | None = None,
    progress: bool = False,
    **engine_options: Any,
) -> Summary:
    """Embed many images into a folder of parquet shards, or into one file.

    A run that was stopped, however, goes on where it was by the same call: a shard that is there is
    not computed again, and at most one is lost. It gives the same rows and the same bytes of
    vectors as a run that was not stopped. Memory does not grow with the number of images.

    Args:
        model: As for ``clever_hub.from_pretrained``.
        inputs: Image files; folders; parquet files, or folders of them, with an image column; ids
            of data sets on the Hub; addresses that fsspec opens; ``-`` for a list of paths on
            standard input.
        output: A folder, which gets ``part-00000.parquet`` …; or a file that ends in ``.parquet``,
            ``.csv``, ``.npz``, ``.jsonl`` or ``.lance``; or the address of a folder.
        engine: ``"local"``, or ``"ray"`` for a cluster.
        update: Bring a folder that is there to the images as they are now: embed those that are new
            or changed, try those again that could not be read, take out the rows of those that have
            vanished. Rows of images that are there, but that ``inputs`` no longer name, stay.
        prune: With ``update``, take out these rows, too.
        backend: ``"onnx"``, ``"torch"``, or ``"auto"`` for the faster of those that can.
        precision: ``"int8"`` is faster on a CPU; the variant is made once.
        calibration: Photos to calibrate int8 on; None takes those that ship.
        device: As for ``from_pretrained``.
        revision: As for ``from_pretrained``.
        threads: Threads of the model; None chooses by the cores that the process may use.
        num_workers: Threads that decode; None likewise.
        batch_size: Images in a pass.
        normalize: Write unit vectors, each part by itself.
        decode: As for ``clever_hub.load_image``, like the next two.
        color_management: Convert colours of an ICC profile to sRGB.
        background: Colour behind transparent pixels.
        shard_size: Images in a shard; None: 4096, or what the folder has.
        image_column: The image column of tables; None looks for it.
        progress: Show progress bars on stderr.
        **engine_options: ``address`` and ``actors`` of Ray; see ``clever_hub.scale.ray.compute``.

    Returns:
        What was done.

    Raises:
        DataError: When an input is not there, no image can be read, or the folder was made by
            another model, with other options or of other inputs.
        ConfigError: When an option is wrong.
        ValueError: When a batch or the threads that decode are not 1 or more.
        CleverError: When the disk is full.

    Example:
        >>> embed_dataset("clever-resnet18", "photos/", "vectors/").rows  # doctest: +SKIP
        1281167
    """
    require("pyarrow.parquet", "onnx")
    from clever_hub.scale.items import list_items
    from clever_hub.scale.places import Places
    from clever_hub.scale.planning import compare_plan
    from clever_hub.scale.settings import Made, Run
    from clever_hub.scale.shards import read_skipped
    from clever_hub.scale.target import Target

    if prune and not update:
        raise ConfigError("--prune: takes out rows when a folder is updated. Give --update, too")
    compute = _engine(engine, engine_options)
    check_batches(batch_size, "skip", 1 if num_workers is None else num_workers)
    given = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs
    names = [os.fspath(one) for one in given]
    target = Target.of(os.fspath(output), update)
    if target.file is not None:
        check_not_input(target.file, names)
    load = LoadOptions(color_management=color_management, background=background, decode=decode)
    before = _read_run(target.storage)
    shard_size = _shard_size(target, before, shard_size)
    if backend == "auto":  # a folder that is there keeps its own: they differ in the last bits
        found = before.made.backend if before else None
        backend = found or fastest_backend(model, device=device, revision=revision)
        backend = "onnx" if precision == "int8" else backend
    options: dict[str, Any] = {"device": device, "revision": revision}
    options["threads"] = check_threads(threads) or available_cores()
    if (precision, calibration) != ("float32", None):
        options |= {"precision": precision, "calibration": calibration}
    how = Engine(os.fspath(model), backend, options, num_workers)
    loaded = how.load()
    made = Made.of(
        loaded.config,
        loaded.source,
        backend=backend,
        precision=precision,
        normalized=normalize,
        batch_size=batch_size,
        load=load,
    )
    wanted = Run(made, names, image_column, shard_size, 0, 0, _working_folders(names))
    with target.held():
        run, changes = _plan(target, before, wanted, update, prune, progress)
        with counting("embedding", run.images, progress) as advance:
            done = list(compute(target.storage, run, how, loaded, advance, **engine_options))
        rows, computed = sum(one.rows for one in done), sum(one.computed for one in done)
        # Not those of the run: an update that was interrupted may have planned more.
        images = sum(one.images for one in done)
        skipped = list(islice(read_skipped(target.storage, range(run.shards)), _MOST_SKIPPED))
        if not rows:
            if before is not None and update:  # the folder stays, to be updated again
                raise DataError(_none_readable(skipped, f"no row is left in {output}"))
            target.clear()
            raise DataError(_none_readable(skipped, "nothing was written"))
        if before is not None and not update and not computed:
            items = list_items(names, image_column)
            places = Places(run.folders, names)
            changes = compare_plan(target.storage, items, run.shards, places)
        target.finish(run.shards, loaded.config, made)
    return Summary(os.fspath(output), images, rows, computed, skipped, changes, update)


def _engine(name: str, options: dict[str, Any]) -> Callable[..., Iterable[Finished]]:
    """The function that computes the shards."""
    if name == "ray":
        from clever_hub.scale.ray import compute

        found: Callable[..., Iterable[Finished]] = compute
        return found
    if name != "local":
        raise ConfigError(f"engine: expected 'local' or 'ray', got {name!r}")
    if options:
        raise ConfigError(f"the local engine has no option {sorted(options)}; leave it out")
    return _compute


def _compute(
    storage: Storage, run: Run, how: Engine, model: JobsMixin, advance: Callable[[int], None]
) -> Iterator[Finished]:
    """The local engine: one shard after the other."""
    from clever_hub.scale.places import Places
    from clever_hub.scale.shards import finish_shard

    for number in range(run.shards):
        yield finish_shard(
            storage,
            number,
            model,
            run.made,
            num_workers=how.num_workers,
            image_column=run.image_column,
            folders=("", *Places(run.folders).folders),
            advance=advance,
        )


def _read_run(storage: Storage) -> Run | None:
    from clever_hub.scale.settings import Run

    content = storage.read(RUN_NAME)
    return None if content is None else Run.from_json(content, f"{storage.root}/{RUN_NAME}")


def _shard_size(target: Target, before: Run | None, asked: int | None) -> int:
    """Images in a shard: what was asked for, else what the folder has, else the default."""
    if asked is not None and asked < 1:
        raise ConfigError(f"shard_size: expected a whole number of 1 or more, got {asked!r}")
    if before is None:
        return SHARD_SIZE if asked is None else asked
    if asked not in (None, before.shard_size):
        other = "name another folder" if target.file is None else "remove this folder"
        raise DataError(
            f"{target.storage.root}: was made with {before.shard_size} images in a shard, not "
            f"with {asked}. Leave --shard-size out, or {other}"
        )
    return before.shard_size


def _working_folders(names: Sequence[str]) -> list[str]:
    """The working folder, if any name may begin at it."""
    local = (name for name in names if "://" not in name)
    relative = any(not os.path.isabs(name) for name in local)  # noqa: PTH117
    return [str(Path.cwd())] if relative else []


def _plan(
    target: Target, before: Run | None, wanted: Run, update: bool, prune: bool, progress: bool
) -> tuple[Run, Changes | None]:
    """The plan that is there, a new one, or one brought up to date; and what has changed."""
    from clever_hub.scale.items import list_items
    from clever_hub.scale.places import Places
    from clever_hub.scale.planning import check_names, make_plan, update_plan
    from clever_hub.scale.shards import retry_skipped

    storage = target.storage
    if before is not None:
        _check_same(target, before, wanted, update)
        check_names(storage, before.shards, Places(before.folders))
        if not update:
            return before, None
    items = list_items(wanted.inputs, wanted.image_column)
    changes = None
    with counting("listing", None, progress) as advance:
        if before is None:
            shards, images = make_plan(storage, items, wanted.shard_size, advance)
        else:
            places = Places(before.folders, wanted.inputs)
            shards, images, changes = update_plan(
                storage,
                items,
                before.shards,
                before.shard_size,
                advance,
                places,
                prune=prune,
            )
            wanted = _joined(before, wanted, places, kept=bool(changes.unnamed) and not prune)
            retry_skipped(storage, range(before.shards))
    run = replace(wanted, shards=shards, images=images)
    storage.write(RUN_NAME, run.to_json())
    return run, changes


def _joined(before: Run, wanted: Run, places: Places, *, kept: bool) -> Run:
    """What an updated folder was made of; ``kept`` tells whether it has rows of other inputs."""
    inputs = places.outermost([*before.inputs, *wanted.inputs]) if kept else wanted.inputs
    folders = list(dict.fromkeys([*before.folders, *wanted.folders]))
    return replace(wanted, inputs=inputs, shard_size=before.shard_size, folders=folders)


def _check_same(target: Target, before: Run, wanted: Run, update: bool) -> None:
    root, other = target.storage.root, "Name another folder"
    follow = "add these to it: --update"
    if target.file is not None:  # these are its parts, of a run that was stopped
        other, follow = "Remove this folder, name another file", "give the same inputs"
    if different := before.made.differences(wanted.made):
        raise DataError(
            f"{root}: was made by another model or with other options ({'; '.join(different)}). "
            f"{other}, or give the same options"
        )
    if update:
        if before.image_column != wanted.image_column:
            raise DataError(
                f"{root}: its rows are of the image column {_column(before)}, not of "
                f"{_column(wanted)}. {other}, or give the same --image-column"
            )
        return
    from clever_hub.scale.places import Places

    places = Places(before.folders)
    was, now = ([places.whole_input(one) for one in run.inputs] for run in (before, wanted))
    if (was, before.image_column) != (now, wanted.image_column):
        raise DataError(
            f"{root}: was made of {_some(before.inputs)}, not of {_some(wanted.inputs)}. "
            f"{other}, or {follow}"
        )


def _column(run: Run) -> str:
    return "that is found by itself" if run.image_column is None else repr(run.image_column)


def _some(names: list[str]) -> str:
    """Names, the first of them if there are many."""
    shown = ", ".join(names[:_MOST_NAMED])
    return shown if len(names) <= _MOST_NAMED else f"{shown} … ({len(names)} in all)"


def _none_readable(skipped: list[tuple[str, str]], so: str) -> str:
    shown = "".join(f"\n  {name}: {reason}" for name, reason in skipped[:10])
    more = f"\n  … {len(skipped)} in all" if len(skipped) > 10 else ""
    return f"none of the images could be read, {so}{shown}{more}"
