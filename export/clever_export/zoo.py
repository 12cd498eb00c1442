"""Bring a trained model into the package: ``python -m clever_export.zoo RUN/model``.

Maintainers run it for each version of a shipped model. It copies the model folder with matrices in
float16, says on what hardware it was trained, and adds every reader's files; ``clever-hub
evaluate`` measures what was copied, and this again, with ``--card``, writes the card from the
figures. Both pin the hash of every file; ``--pin`` alone does it after any other change.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from clever_export.package import package
from clever_hub import zoo
from clever_hub.pins import write_pins
from clever_hub.torch_model import CleverModel, write_model_folder


def ship(model_folder: str | Path, target: str | Path | None = None, **provenance: str) -> Path:
    """Copy a model folder into the zoo, matrices as float16, and complete it.

    Args:
        model_folder: The model folder of a run.
        target: Where to; ``clever_hub/zoo/<name>`` of this installation when None.
        **provenance: What the run did not know, such as ``hardware``; empty ones are left out.

    Returns:
        The folder written. Files of an earlier version that describe other weights (figures,
        picture) are removed from it; its card is written anew, without figures.

    Raises:
        ModelFormatError: When the model folder is damaged, or float16 cannot hold the weights.

    Example:
        >>> ship("runs/clever-resnet18/model", hardware="2 CPU cores")  # doctest: +SKIP
    """
    model = CleverModel.from_folder(model_folder)
    known = {key: value for key, value in provenance.items() if value}
    config = replace(model.config, provenance={**model.config.provenance, **known})
    folder = Path(target) if target else zoo.ZOO / config.name
    for stale in ("evaluation.json", "figures.png", "model.onnx"):
        (folder / stale).unlink(missing_ok=True)
    write_model_folder(folder, config, model.backbone.state_dict(), half_matrices=True)
    package(folder)
    _pin(folder)
    return folder


def _pin(folder: Path) -> None:
    """Pin what the package ships; a folder elsewhere is nobody's to trust by name."""
    if folder.resolve().parent == zoo.ZOO.resolve():
        write_pins(zoo.ZOO)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "model_folder", nargs="?", help="model folder of a run, or of the zoo with --card"
    )
    parser.add_argument("--card", action="store_true", help="only write the card of this folder")
    parser.add_argument("--pin", action="store_true", help="only pin the zoo's files, no folder")
    parser.add_argument("--hardware", default="", help="what it was trained on, for the card")
    parser.add_argument("--target", default=None, help="another folder than the zoo's")
    options = parser.parse_args()
    if options.pin:
        write_pins(zoo.ZOO)
        return
    if options.model_folder is None:
        parser.error("give a model folder, or --pin")
    if options.card:
        package(options.model_folder)
        _pin(Path(options.model_folder))
        return
    ship(options.model_folder, options.target, hardware=options.hardware)


if __name__ == "__main__":
    main()
