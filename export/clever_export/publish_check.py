"""Is a model folder ready to be published?"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnxruntime
from huggingface_hub import ModelCard
from PIL import Image
from yaml import YAMLError

import clever_hub
from clever_export.card import CARD_NAME, is_generated, make_card
from clever_export.card_evaluation import own_evaluation
from clever_export.card_picture import DIGEST_KEY, PICTURE_NAME, digest_of, has_picture
from clever_export.card_tables import table
from clever_export.package import AUTO_MAP, LICENSE_NAME, PROCESSOR_NAME
from clever_export.verify import REPORT_NAME
from clever_hub.backends.onnx import OF_THE_GRAPH, read_graph_config
from clever_hub.backends.own import (
    ENDPOINT_CODE,
    OWN_BACKBONES,
    REMOTE_CODE,
    endpoint_code,
    remote_code,
)
from clever_hub.backends.variants import Variant
from clever_hub.config import CONFIG_NAME, ModelConfig
from clever_hub.errors import CleverError, ModelFormatError
from clever_hub.hub.evaluation import EVALUATION_NAME
from clever_hub.jobs.heads import HEADS_KEY, HEADS_NAME, Heads
from clever_hub.weights import WEIGHTS_NAME, sha256_of

GRAPH_NAME = "model.onnx"
REQUIRED = (
    *(CONFIG_NAME, WEIGHTS_NAME, GRAPH_NAME, PROCESSOR_NAME),
    *(*REMOTE_CODE, *ENDPOINT_CODE, CARD_NAME),
)
_OWN_CODE = {f"{module}.py" for modules in OWN_BACKBONES.values() for module in modules}
KNOWN = frozenset(
    (*REQUIRED, *_OWN_CODE, REPORT_NAME, EVALUATION_NAME, PICTURE_NAME, HEADS_NAME, LICENSE_NAME)
)
# A graph without weights has 100 kB or less; a larger one contains weights of its own.
MAX_GRAPH_BYTES = 1_000_000
_CARD_KEYS = ("license", "library_name", "pipeline_tag", "tags")
_LICENCE = "## Licence"
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def check_folder(folder: str | Path) -> list[Path]:
    """Check everything that a reader relies on.

    The folder must load strictly in both backends, be verified green with these very weights, have
    a complete card with today's figures, the remote code of this package unchanged, and no file
    that does not belong.

    Args:
        folder: A model folder, as ``clever-hub export`` writes it.

    Returns:
        Its files, sorted by name.

    Raises:
        ModelFormatError: Lists everything that is wrong, with what to do; or the folder is a
            variant.

    Example:
        >>> [path.name for path in check_folder("my-model")]  # doctest: +SKIP
        ['README.md', 'config.json', …]
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelFormatError(f"{folder}: expected a model folder, found none")
    _refuse_variant(folder)
    paths = sorted(folder.iterdir())
    problems = list(_file_problems(folder, paths))
    if not problems:  # the rest reads the files
        problems = [*_load_problems(folder), *_config_problems(folder)]
        problems += [*_report_problems(folder), *_card_problems(folder)]
        problems += _heads_problems(folder)
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise ModelFormatError(f"{folder}: not ready to be published\n{listed}")
    return paths


def _refuse_variant(folder: Path) -> None:
    """A repository has the weights that all readers share; a variant has one reader."""
    try:
        config = ModelConfig.load(folder)
        variant = Variant.of(config)
    except ModelFormatError:
        return  # loading says more
    if variant is not None:
        raise ModelFormatError(
            f"{folder}: is an ONNX variant ({variant.precision}) of {config.name}, for machines "
            "of your own: copy the folder there. Publish the model that it was made from; "
            "users make a variant of it with `clever-hub export user/name -o "
            "DIR` and the same options"
        )


def _file_problems(folder: Path, paths: list[Path]) -> Iterator[str]:
    for path in paths:
        if path.name not in KNOWN:
            yield f"{path.name} does not belong into a model repository. Remove it"
        elif path.is_symlink() or not path.is_file():
            yield f"{path.name} is no regular file. Put a copy in its place"
        elif path.stat().st_size == 0:
            yield f"{path.name} is empty"
    missing = [name for name in REQUIRED if not (folder / name).exists()]
    if missing:
        yield f"missing: {', '.join(missing)}. `clever-hub export MODEL -o NEW` writes them"
    graph = folder / GRAPH_NAME
    if graph.is_file() and graph.stat().st_size > MAX_GRAPH_BYTES:
        yield f"{GRAPH_NAME} has {graph.stat().st_size:,} bytes: it holds weights. Export it again"
    yield from _code_problems(folder)


def _code_problems(folder: Path) -> Iterator[str]:
    """The code that transformers and endpoints run must be that of this version."""
    try:
        config = ModelConfig.load(folder)
    except ModelFormatError:
        return  # loading says more
    code = remote_code(config.architecture)
    if missing := [name for name in code if name not in REQUIRED and not (folder / name).exists()]:
        yield f"missing: {', '.join(missing)}. Export the folder again"
    for name in sorted(_OWN_CODE - code.keys()):
        if (folder / name).exists():
            yield f"{name} is of another backbone. Remove it"
    for name, content in {**code, **endpoint_code()}.items():
        path = folder / name
        if path.is_file() and path.read_text(encoding="utf-8", errors="replace") != content:
            yield f"{name} is not this version's. Export the folder again"
    if config.extra.get("auto_map") != AUTO_MAP:
        yield f"{CONFIG_NAME}: auto_map leads to other code. Export the folder again"


def _load_problems(folder: Path) -> Iterator[str]:
    for backend in ("torch", "onnx"):
        try:
            clever_hub.from_pretrained(folder, backend=backend)
        except CleverError as error:
            yield f"does not load with the {backend} backend: {error}"


def _heads_problems(folder: Path) -> Iterator[str]:
    """Heads are there and whole, or not there at all."""
    if HEADS_KEY in ModelConfig.load(folder).extra:
        try:
            Heads.load(folder)
        except CleverError as error:
            yield f"its heads do not load: {error}"
    elif (folder / HEADS_NAME).exists():
        yield f"{HEADS_NAME} is not named in {CONFIG_NAME}. Remove it, or fit heads again"


def _report_problems(folder: Path) -> Iterator[str]:
    advice = f"Run `clever-hub verify {folder} PHOTOS`"
    try:
        report = json.loads((folder / REPORT_NAME).read_text(encoding="utf-8"))
        green, digest = report["green"], report["weights_sha256"]
    except FileNotFoundError:
        yield f"not verified: no {REPORT_NAME}. {advice}"
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield f"{REPORT_NAME} cannot be read ({error!r}). {advice}"
        return
    if green is not True:
        yield f"{REPORT_NAME} is not green: its readers differ. Export the folder again; {advice}"
    if digest != sha256_of(folder / WEIGHTS_NAME):
        yield f"{REPORT_NAME} is about other weights. {advice}"
    # Files of earlier versions do not have the key; null says that there was no graph.
    if "graph_sha256" in report and report["graph_sha256"] != sha256_of(folder / GRAPH_NAME):
        yield f"{REPORT_NAME} is about another {GRAPH_NAME}. {advice}"


def _config_problems(folder: Path) -> Iterator[str]:
    """The config must be the one that the graph was exported with, not edited since."""
    advice = "Export the folder again and verify it"
    try:
        config = ModelConfig.load(folder)
        session = onnxruntime.InferenceSession(folder / GRAPH_NAME)
    except Exception:  # noqa: BLE001 -- ONNX Runtime's errors have no common base; loading says more
        return
    try:
        exported = read_graph_config(session)
    except ModelFormatError as error:
        yield f"{GRAPH_NAME}: {error}. {advice}"
        return
    changed = [key for key in OF_THE_GRAPH if getattr(config, key) != getattr(exported, key)]
    if changed:
        yield f"{CONFIG_NAME} is not what was exported, in {', '.join(changed)}. {advice}"
    try:
        prepared = json.loads((folder / PROCESSOR_NAME).read_text(encoding="utf-8"))
        numbers = config.preprocessing.to_dict().items()
        others = [key for key, value in numbers if prepared.get(key) != value]
    except (OSError, ValueError, AttributeError) as error:
        yield f"{PROCESSOR_NAME} cannot be read ({error!r}). {advice}"
        return
    if others:
        yield f"{PROCESSOR_NAME} differs from {CONFIG_NAME} in {', '.join(others)}. {advice}"


def _card_problems(folder: Path) -> Iterator[str]:
    advice = f"`clever-hub export {folder} -o NEW` writes the card anew"
    try:
        # read_text makes one kind of line ends of both
        text = (folder / CARD_NAME).read_text(encoding="utf-8")
        card, expected = ModelCard(text), ModelCard(make_card(folder))
    except (CleverError, ValueError, KeyError, YAMLError) as error:
        yield f"{CARD_NAME}: {' '.join(str(error).split())}. {advice}"
        return
    found, wanted = _front_matter(card), _front_matter(expected)
    if missing := [key for key in _CARD_KEYS if not found.get(key)]:
        yield f"{CARD_NAME} lacks {', '.join(missing)} in its front matter. {advice}"
    evaluation = own_evaluation(folder)
    figures = table(evaluation) if evaluation else ""
    if found.get("model-index") != wanted.get("model-index") or figures not in card.content:
        same = figures in card.content and _values(found) == _values(wanted)
        what = "names the photos otherwise" if same else "has other figures"
        yield f"{CARD_NAME} {what} than {EVALUATION_NAME}. {advice}"
    headings = [line for line in expected.content.splitlines() if line.startswith("## ")]
    if absent := [line for line in headings if line not in card.content]:
        yield f"{CARD_NAME} lacks the sections {', '.join(absent)}. {advice}"
    elif not missing and (stale := _stale(card, expected)):
        yield (
            f"{CARD_NAME} says otherwise than {CONFIG_NAME}, in {', '.join(stale)}. If the card is "
            f"right, correct {CONFIG_NAME}; then, or else, {advice}"
        )
    if "FOLDER" in "".join(_FENCED.findall(card.content)) and not is_generated(folder, text):
        yield (
            f"{CARD_NAME} loads the model from FOLDER, and is not as it was generated, so nothing "
            f"is put in its place. Write the repository, user/name, there; or {advice}"
        )
    if evaluation and has_picture(evaluation):
        yield from _picture_problems(folder / PICTURE_NAME, digest_of(evaluation), advice)


def _values(front_matter: Mapping[str, Any]) -> list[Any]:
    """The figures of a card's model index, without the names of their photos."""
    models = front_matter.get("model-index") or ()
    results = [result for model in models for result in model.get("results") or ()]
    return [result.get("metrics") for result in results]


def _stale(card: ModelCard, expected: ModelCard) -> list[str]:
    """What a card says otherwise than the config does today; what was added to it is no fault."""
    found, wanted = _front_matter(card), _front_matter(expected)
    stale = ["license"] if found["license"] != wanted["license"] else []
    stale += [
        key
        for key in ("datasets", "tags")
        if set(wanted.get(key) or ()) - set(found.get(key) or ())
    ]
    if not _licence_lines(expected) <= _licence_lines(card):
        stale.append(f"the section {_LICENCE}")
    heads = [line for line in expected.content.splitlines() if line.startswith("- **Heads** ")]
    if not set(heads) <= set(card.content.splitlines()):
        stale.append("the line Heads")
    return stale


def _licence_lines(card: ModelCard) -> set[str]:
    """The lines of the section about the licence."""
    _, _, rest = f"\n{card.content}".partition(f"\n{_LICENCE}\n")
    return {line.strip() for line in rest.partition("\n## ")[0].splitlines() if line.strip()}


def _picture_problems(path: Path, digest: str, advice: str) -> Iterator[str]:
    """The card shows the picture, so it must be there, and drawn from these figures."""
    if not path.is_file():
        yield f"missing: {path.name}, which {CARD_NAME} shows. {advice}"
        return
    try:
        with Image.open(path) as picture:
            drawn = picture.info.get(DIGEST_KEY)
    except OSError as error:
        yield f"{path.name} cannot be read ({error}). {advice}"
        return
    if drawn != digest:
        yield f"{path.name} was drawn from other figures than {EVALUATION_NAME}. {advice}"


def _front_matter(card: ModelCard) -> dict[str, Any]:
    data: Any = card.data
    content: dict[str, Any] = data.to_dict()
    return content
