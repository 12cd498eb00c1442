"""``clever-hub info``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from clever_hub.backends.variants import VARIANT_KEY, Variant, check_graph_beside
from clever_hub.cli.console import file_size, output, shown
from clever_hub.cli.options import Model, Revision
from clever_hub.config import ModelConfig
from clever_hub.hub.evaluation import read_evaluation
from clever_hub.hub.resolve import resolve
from clever_hub.hub.shipped import ModelInfo, means, model_info
from clever_hub.jobs.heads import HeadsConfig
from clever_hub.weights import WEIGHTS_NAME, Weights

_FIGURE = len("0.0001234")
_BASELINES = {"random": "random weights", "pixels": "raw pixels"}


def run(
    model: Model,
    revision: Revision = None,
) -> None:
    """Show a model's architecture, training and measured figures.

    Works without torch. A model on the Hub is downloaded first, as by any other command.

    Example: `clever-hub info clever-resnet18`
    """
    folder, source = resolve(model, revision=revision)
    config = ModelConfig.load(folder)
    variant = Variant.of(config)
    if variant is None:
        info = model_info(folder)
        with Weights(folder / WEIGHTS_NAME) as weights:
            sha256 = weights.sha256()
        check_graph_beside(folder, sha256)
    else:
        sha256 = variant.check(folder)
        info = model_info(folder, size_bytes=variant.weights_file(folder).stat().st_size)
    source.verified(sha256)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    rows = [*_rows(info, config), *(_variant_rows(variant, config) if variant else ())]
    for key, value in rows:
        table.add_row(shown(key), shown(value))
    table.add_row("folder", shown(str(folder)))
    if source.revision:
        table.add_row("commit", f"{source.revision} of {shown(source.name)}")
    table.add_row("weights sha256", sha256)
    console = output()
    console.print(table)
    if info.figures:
        console.print(_figures(read_evaluation(folder) or {}))


def _rows(info: ModelInfo, config: ModelConfig) -> Iterator[tuple[str, str]]:
    yield "name", info.name
    yield "backbone", f"{info.backbone} {config.model_args or ''}".rstrip()
    yield (
        "embedding",
        (
            f"{config.num_features} = {info.invariant_dim} invariant + {info.equivariant_dim} "
            "equivariant"
        ),
    )
    preprocessing = config.preprocessing
    yield (
        "images",
        (
            f"shortest side to {preprocessing.resize_size} px ({preprocessing.interpolation}), "
            f"centre crop {preprocessing.crop_size} px"
        ),
    )
    yield "weights", f"{file_size(info.size_bytes)}, {info.license}"
    yield from _flat("data terms", config.data_terms)
    provenance = {key: value for key, value in config.provenance.items() if key != "recipe"}
    yield from _flat("trained", provenance)
    heads = HeadsConfig.of(config)
    if heads is not None:
        yield (
            "heads",
            f"fitted to {heads.photos:,} photos of {heads.data}, turned by ±{heads.rotation:g}°",
        )
        found = heads.calibration
        yield "calibration", f"{found.photos:,} photos of {found.data}" if found else "none"
        yield from _flat("calibration", found.measured if found else {})
    if "recipe" in config.provenance:
        yield "trained · recipe", "in config.json, under provenance"


def _variant_rows(variant: Variant, config: ModelConfig) -> Iterator[tuple[str, str]]:
    yield "variant", f'{variant.precision}, for ONNX Runtime alone: backend="onnx"'
    yield "input", variant.describe_input(config.preprocessing.crop_size)
    entry = config.extra[VARIANT_KEY]
    origin = _mapping(entry.get("of"))
    yield "made from", f"{origin.get('name', config.name)} {origin.get('weights_sha256', '')}"
    yield from _flat("calibration images", entry.get("calibration_images"))
    # Measured on held-out photos against the model that the variant was made from.
    yield from _flat("fidelity", _mapping(entry.get("fidelity")))


def _flat(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """One row for each value, nested objects named by their path; empty values are left out."""
    if isinstance(value, Mapping):
        for name, entry in value.items():
            yield from _flat(f"{key} · {name}", entry)
    elif value not in (None, "", []):
        yield key, f"{value:.4g}" if isinstance(value, float) else str(value)


def _figures(content: Mapping[str, Any]) -> Table:
    """The measured figures, next to those of the baselines."""
    columns = {"this model": means(content["figures"])}
    for name, baseline in _mapping(content.get("baselines")).items():
        found = means(_mapping(_mapping(baseline).get("figures")))
        columns[_BASELINES.get(name, name)] = found
    table = Table(title="\nMeasured, see evaluation.json for how", title_justify="left", box=None)
    # On a narrow terminal the names are folded, so that no figure is cut.
    table.add_column("figure", overflow="fold")
    for name in columns:
        table.add_column(shown(name), justify="right", width=_FIGURE)
    for path in columns["this model"]:
        cells = (found.get(path) for found in columns.values())
        table.add_row(
            shown(" · ".join(path)), *("–" if cell is None else f"{cell:.4g}" for cell in cells)
        )
    return table


def _mapping(value: object) -> Mapping[str, Any]:
    """The value if it is an object, else an empty one: evaluation.json is untrusted."""
    return value if isinstance(value, Mapping) else {}
