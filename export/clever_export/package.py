"""Add the files of every reader to a model folder."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from clever_export.card import write_card
from clever_export.onnx import export_onnx
from clever_hub.backends.own import endpoint_code, remote_code
from clever_hub.backends.variants import VARIANT_KEY, check_graph_beside
from clever_hub.config import CONFIG_NAME, ModelConfig, PreprocessingConfig
from clever_hub.errors import CleverError, ConfigError, ModelFormatError
from clever_hub.files import whole_folder, write_json, write_text
from clever_hub.hub.evaluation import EVALUATION_NAME
from clever_hub.jobs.heads import HEADS_NAME
from clever_hub.weights import WEIGHTS_NAME, Weights

PROCESSOR_NAME, LICENSE_NAME = "preprocessor_config.json", "LICENSE"
_COPIED = (CONFIG_NAME, WEIGHTS_NAME, HEADS_NAME, EVALUATION_NAME, LICENSE_NAME)
AUTO_MAP = {
    "AutoConfig": "configuration_clever.CleverConfig",
    "AutoModel": "modeling_clever.CleverModel",
    "AutoModelForImageClassification": "modeling_clever.CleverForImageClassification",
    "AutoImageProcessor": "image_processing_clever.CleverImageProcessor",
}


def package(folder: str | Path, by_name: bool = False) -> Path:
    """Add the files for transformers and ONNX Runtime and the model card to a model folder.

    Writes model.onnx, preprocessor_config.json, the remote code for transformers, the handler for
    Inference Endpoints, ``auto_map`` into config.json, and the card. The weights are not changed; a
    second call changes nothing.

    Args:
        folder: A model folder: config.json, model.safetensors and, if measured, evaluation.json.
        by_name: The model ships with clever-hub; its card then loads it by its name.

    Returns:
        The folder.

    Raises:
        ModelFormatError: When the folder is damaged, or the graph cannot share its weights.

    Example:
        >>> package("runs/mine/model")  # doctest: +SKIP
    """
    folder = Path(folder)
    config = ModelConfig.load(folder)
    check_processor(folder)
    config = replace(config, extra={**config.extra, "auto_map": AUTO_MAP})
    write_json(folder / CONFIG_NAME, config.to_dict())
    # Only numbers: config.json names the class; CleverImageProcessor.to_dict explains why.
    write_json(folder / PROCESSOR_NAME, config.preprocessing.to_dict())
    write_code(folder)
    export_onnx(folder)
    write_card(folder, by_name)
    return folder


def write_code(folder: Path) -> None:
    """Write the code that transformers and Inference Endpoints run, that of this version.

    Args:
        folder: A model folder.
    """
    code = {**remote_code(ModelConfig.load(folder).architecture), **endpoint_code()}
    for name, content in code.items():
        write_text(folder / name, content)


def refuse_variant(folder: Path) -> None:
    """Refuse a variant: nothing can be exported from its weights.

    Args:
        folder: A model folder.

    Raises:
        ModelFormatError: When the folder is a variant; names the model that it was made from.
    """
    if (entry := ModelConfig.load(folder).extra.get(VARIANT_KEY)) is None:
        return
    origin = entry.get("of", {}).get("name") if isinstance(entry, dict) else None
    raise ModelFormatError(
        f"{folder}: expected a model, got an ONNX variant, which only ONNX Runtime reads. "
        f"Export the model that it was made from{f', {origin}' if origin else ''}"
    )


def check_processor(folder: Path) -> None:
    """Refuse a processor that prepares images otherwise than the config says.

    The files that are made follow the config. transformers' ``save_pretrained`` of a processor with
    another size changes the processor's file alone.

    Args:
        folder: A folder of a model or a classifier, with a preprocessor_config.json or without.

    Raises:
        ModelFormatError: When numbers differ; says which.
    """
    path = folder / PROCESSOR_NAME
    if not path.is_file():
        return
    try:
        prepared = json.loads(path.read_text(encoding="utf-8"))
        content = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        numbers = PreprocessingConfig.from_dict(content["preprocessing"]).to_dict().items()
        others = {key: prepared[key] for key, value in numbers if prepared.get(key, value) != value}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFormatError(
            f"{path}: cannot be compared with {CONFIG_NAME} ({error!r}). Remove it"
        ) from error
    if others:
        told = ", ".join(f"{key} {value}" for key, value in others.items())
        raise ModelFormatError(
            f"{path}: has {told}, and {CONFIG_NAME} another, by which images are prepared for the "
            f'other readers. Write the numbers into "preprocessing" of {CONFIG_NAME}, if the model '
            f"was trained so; else remove {PROCESSOR_NAME}"
        )


@contextmanager
def new_folder(out: Path, option: str = "--output") -> Iterator[Path]:
    """Give a temporary folder to fill; it becomes ``out`` when the block succeeds.

    Args:
        out: The folder to create.
        option: By which it was given.

    Yields:
        An empty folder beside it.

    Raises:
        ConfigError: When ``out`` exists; it is never overwritten.
    """
    if os.path.lexists(out):
        raise ConfigError(f"{option}: {out} is there already. Remove it, or name another folder")
    with whole_folder(out) as temporary:
        yield temporary


def copy_model(source: Path, target: Path) -> Path:
    """Copy config, weights, heads, evaluation and licence; not the files that ``package`` writes.

    Args:
        source: A model folder.
        target: A folder that exists.

    Returns:
        The target.

    Raises:
        ModelFormatError: When the weights are missing or damaged, or have changed since the graph
            beside them was made: ``package`` would make a new graph for them. As
            ``check_processor``.
    """
    check_processor(source)
    with Weights(source / WEIGHTS_NAME) as weights:
        check_graph_beside(source, weights.sha256())
    for name in _COPIED:
        if (source / name).is_file():
            _copy(source / name, target / name)
    return target


def copy_license(source: Path, target: Path) -> None:
    """Copy the words of the licence, where the model has some, to a folder that gets its weights.

    Args:
        source: A model folder.
        target: A folder that exists.
    """
    if (source / LICENSE_NAME).is_file():
        _copy(source / LICENSE_NAME, target / LICENSE_NAME)


@contextmanager
def as_if_in(source: Path, copy: Path) -> Iterator[None]:
    """Let an error that names a file of a copy name that of the folder it was copied from.

    Args:
        source: The folder that was copied.
        copy: The copy, which is gone when the error is read.

    Raises:
        CleverError: That of the block, with the other path.
    """
    try:
        yield
    except CleverError as error:
        error.args = tuple(str(arg).replace(str(copy), str(source)) for arg in error.args)
        raise


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        # shutil names the source first, and only the first is shown.
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            error.filename, error.filename2 = str(target), None
        raise
