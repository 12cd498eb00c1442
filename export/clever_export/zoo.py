"""Add a trained model to the package: ``python -m clever_export.zoo RUN/model``.

Maintainers run it for each version of a shipped model. It copies the model folder with matrices in
float16, records the training hardware, adds the files of every reader, compares the readers on real
photos (verify.json), writes the card and pins the hash of every file. Existing files are replaced
only after the readers agree. ``--evaluate DATA`` also evaluates the shipped model; if it was
evaluated separately, ``python -m clever_export.zoo NAME --card`` writes the card from the figures.
After any other change of the zoo's files, ``--pin`` pins them again.
"""

from __future__ import annotations

import argparse
import copy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save

from clever_export.card import write_card
from clever_export.package import package, write_code
from clever_export.publish_check import KNOWN
from clever_export.verify import verify
from clever_hub.backends.torch import CleverModel, to_store, write_model_folder
from clever_hub.config import CONFIG_NAME, ModelConfig
from clever_hub.errors import CleverError, ModelFormatError, ModelNotFoundError, require
from clever_hub.hub import shipped
from clever_hub.hub.evaluation import EVALUATION_NAME, read_evaluation
from clever_hub.hub.origin import public_model_name
from clever_hub.hub.pins import write_pins
from clever_hub.images.finding import find_images
from clever_hub.jobs.heads import HEADS_KEY, HEADS_NAME, copy_heads
from clever_hub.weights import WEIGHTS_NAME, sha256_of

# Part of scikit-image's wheel; public domain or CC0.
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")


def ship(
    model_folder: str | Path,
    target: str | Path | None = None,
    *,
    name: str | None = None,
    photos: Iterable[str | Path] = (),
    **provenance: str,
) -> Path:
    """Copy a model folder into the zoo, matrices as float16, complete, verified and pinned.

    Args:
        model_folder: The model folder of a run.
        target: The folder to write; None is ``clever_hub/zoo/<name>`` of this installation. Its
            model files are replaced after everything has succeeded.
        name: The name it ships under; None is that of the run.
        photos: Photos to compare the readers on; those of scikit-image when there are none.
        **provenance: Facts that the run did not record, such as ``hardware``; empty ones are left
            out.

    Returns:
        The folder written. Figures that were measured with exactly these weights, there or in
        ``model_folder``, are kept; others are not.

    Raises:
        ModelFormatError: When the model folder is damaged, float16 cannot hold the weights, or the
            readers differ.

    Example:
        >>> ship("runs/clever-resnet18/model", hardware="2 CPU cores")  # doctest: +SKIP
    """
    model = CleverModel.from_folder(model_folder)
    known = {key: value for key, value in provenance.items() if value}
    folder = Path(target) if target else shipped.ZOO / (name or model.config.name)
    # A run has a name of its own; what ships is called as its folder.
    config = replace(
        model.config,
        name=name or model.config.name,
        provenance={**_without_paths(model.config.provenance), **known},
    )
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary) / folder.name
        copy_heads(model_folder, staged)
        config = _half_heads(staged, config)
        write_model_folder(staged, config, model.backbone.state_dict(), half_matrices=True)
        _keep_figures(staged, (Path(model_folder), folder))
        package(staged, by_name=True)
        _verify(staged, list(photos) or _photos())
        _replace(folder, staged)
    _pin(folder)
    return folder


def _half_heads(folder: Path, config: ModelConfig) -> ModelConfig:
    """Store the matrices of the heads there as float16; the config then names the new file."""
    path = folder / HEADS_NAME
    if not path.is_file():
        return config
    # Its save_file makes a file that only its owner may read.
    path.write_bytes(save({k: to_store(k, value, True) for k, value in load_file(path).items()}))
    heads = {**config.extra[HEADS_KEY], "sha256": sha256_of(path)}
    return replace(config, extra={**config.extra, HEADS_KEY: heads})


def _without_paths(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The provenance as it may be published: a teacher that lay in a folder has its name alone."""
    found = copy.deepcopy(dict(provenance))
    teacher = found.get("recipe", {}).get("method", {}).get("teacher")
    if teacher:
        teacher["model"] = public_model_name(teacher["model"])
    return found


def write_figures(folder: str | Path) -> Path:
    """Write card and code anew after ``clever-hub evaluate`` or a change of them, and pin them.

    Args:
        folder: A shipped model's folder.

    Returns:
        The folder.

    Raises:
        ModelFormatError: When the figures are of other weights.
    """
    folder = Path(folder)
    # Not the graph: another torch may write its bytes differently, and these were verified.
    write_code(folder)
    write_card(folder, by_name=True)
    _pin(folder)
    return folder


def _keep_figures(staged: Path, places: Iterable[Path]) -> None:
    digest = sha256_of(staged / WEIGHTS_NAME)
    for path in (place / EVALUATION_NAME for place in places):
        if path.is_file() and _measured(path) == digest:
            shutil.copyfile(path, staged / EVALUATION_NAME)
            return


def _replace(folder: Path, staged: Path) -> None:
    """Replace the model files of an earlier version; keep other files."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name in KNOWN:
            path.unlink()
    shutil.copytree(staged, folder, dirs_exist_ok=True)


def _measured(path: Path) -> object:
    """The hash of the weights that an evaluation.json is about."""
    try:
        model = (read_evaluation(path) or {}).get("model")
    except ModelFormatError:
        return None
    return model.get("weights_sha256") if isinstance(model, Mapping) else None


def _photos() -> list[Path]:
    folder = Path(str(require("skimage.data", "demo").__file__)).parent
    return [folder / name for name in PHOTOS]


def _verify(folder: Path, photos: list[str | Path] | list[Path]) -> None:
    agreements = verify(folder, photos)
    red = [agreement for agreement in agreements if not agreement.green]
    if red:
        shown = "".join(
            f"\n  {a.reader}, batches of {a.batch_size}: {a.error or a.max_abs}" for a in red
        )
        raise ModelFormatError(f"{folder.name}: not shipped, its readers differ:{shown}")


def _evaluate(folder: Path, data: str, protocols: str | None) -> None:
    """Evaluate a shipped model by the command line: this package may not import clever_training."""
    name = folder.name if _is_shipped(folder) else str(folder)
    code = "from clever_hub.cli.app import main; main()"
    command = [sys.executable, "-c", code, "evaluate", name, "--data", data, "-o", str(folder)]
    command += ["--protocols", protocols] if protocols else []
    subprocess.run(command, check=True)  # noqa: S603 -- a list, no shell


def _is_shipped(folder: Path) -> bool:
    return folder.resolve().parent == shipped.ZOO.resolve()


def _pin(folder: Path) -> None:
    """Pin the files of a folder in the zoo; folders elsewhere are not pinned."""
    if _is_shipped(folder):
        write_pins(shipped.ZOO)


def _folder(name: str) -> Path:
    """A folder, or the name of a shipped model; its pins may be out of date."""
    folder = Path(name) if (Path(name) / CONFIG_NAME).is_file() else shipped.ZOO / name
    if not (folder / CONFIG_NAME).is_file():
        raise ModelNotFoundError(f"{name}: neither a model folder nor a shipped model")
    return folder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", nargs="?", help="model folder of a run; a name with --card")
    parser.add_argument("--card", action="store_true", help="only write card and code, and pin")
    parser.add_argument("--pin", action="store_true", help="only pin the zoo's files")
    parser.add_argument("--hardware", default="", help="what it was trained on, for the card")
    parser.add_argument("--name", default=None, help="the name it ships under")
    parser.add_argument("--target", default=None, help="another folder than the zoo's")
    parser.add_argument("--photos", nargs="+", type=Path, default=[], help="files or folders")
    parser.add_argument("--evaluate", metavar="DATA", help="measure it, as clever-hub evaluate")
    parser.add_argument("--protocols", help="what to measure; all when left out")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """The command.

    Args:
        arguments: Instead of the command line's.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.pin:
        write_pins(shipped.ZOO)
        return
    if options.model is None:
        parser.error("give a model folder, or --pin")
    try:
        if options.card:
            folder = _folder(options.model)
        else:
            photos = list(find_images(options.photos))
            folder = ship(
                options.model,
                options.target,
                name=options.name,
                photos=photos,
                hardware=options.hardware,
            )
        if options.evaluate:
            _evaluate(folder, options.evaluate, options.protocols)
        if options.card or options.evaluate:
            write_figures(folder)
    except CleverError as error:
        parser.exit(1, f"Error: {error}\n")
    sys.stdout.write(f"{folder}\n")


if __name__ == "__main__":
    main()
