"""The command line: what it prints, what it writes, and how it fails."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

import clever_hub
from clever_hub.backends.torch import CleverModel
from clever_hub.cli import app as app_module
from clever_hub.cli.app import app
from clever_hub.cli.info import _figures as info_figures
from clever_hub.cli.list import _table as list_table
from clever_hub.config import ModelConfig
from clever_hub.embeddings import EncodedBatch
from clever_hub.errors import ConfigError, DataError
from clever_hub.files import write_json
from clever_hub.hub import shipped
from clever_hub.hub.shipped import ModelInfo
from clever_hub.images.encoding import EncoderMixin
from clever_hub.images.finding import check_not_input, find_images
from clever_hub.weights import sha256_of

runner = CliRunner()


def run(*words: object) -> Any:
    """Run the command; the result has exit_code, stdout, stderr."""
    return runner.invoke(app, [str(word) for word in words])


def fails(*words: object) -> str:
    """Run a command that must fail cleanly; what it says."""
    result = run(*words)
    assert result.exit_code == 1
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    assert "Error: " in result.stderr
    return str(result.stderr)


# Help and verbs.


def test_the_installed_command_runs() -> None:
    command = [sys.executable, "-c", "from clever_hub.cli.app import main; main()", "--version"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == f"clever-hub {clever_hub.__version__}\n"


@pytest.mark.parametrize(
    "verb",
    [
        "list",
        "info",
        "embed",
        "compare",
        "duplicates",
        "index",
        "search",
        "leaks",
        "attention",
        "finetune",
        "report",
    ],
)
def test_every_verb_is_listed_and_teaches_by_example(verb: str) -> None:
    assert verb in run("--help").stdout
    text = run(verb, "--help").stdout
    assert f"clever-hub {verb}" in text
    assert "Example" in text


def test_a_mistyped_verb_is_corrected() -> None:
    result = run("embedd")
    assert result.exit_code == 2
    assert "Did you mean 'embed'?" in result.stderr


@pytest.fixture
def other_verbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verbs whose extra is not installed: one cannot be imported, one fails when it is run."""
    (tmp_path / "early_verb.py").write_text("import no_such_module\ndef run() -> None: ...")
    (tmp_path / "late_verb.py").write_text("def run() -> None:\n    import no_such_module")
    (tmp_path / "buggy_verb.py").write_text("def run() -> None:\n    import clever_hub.no_such")
    monkeypatch.syspath_prepend(str(tmp_path))
    entries = {
        name: EntryPoint(name, f"{name}_verb:run [train]", app_module.GROUP)
        for name in ("early", "late", "buggy")
    }
    monkeypatch.setattr(app_module, "verbs", lambda: entries)


def test_a_verb_whose_extra_is_missing_is_listed_and_says_which(other_verbs: None) -> None:
    assert "early" in run("--help").stdout
    for verb in ("early", "late"):
        assert 'pip install "clever-hub[train]"' in fails(verb)
    assert 'pip install "clever-hub[train]"' in fails("early", "recipe.yaml")


def test_a_bug_is_not_taken_for_a_missing_extra(other_verbs: None) -> None:
    assert isinstance(run("buggy").exception, ModuleNotFoundError)


# list, info, compare.


@pytest.fixture
def evaluated(model_folder: Path) -> Path:
    """The model with figures, next to those of a random one."""

    def figures(plain: float, rotated: float) -> dict[str, Any]:
        return {
            "knn": {
                condition: {"full": {"top1": {"mean": mean, "std": None, "values": [mean]}}}
                for condition, mean in (("plain", plain), ("rotated", rotated))
            }
        }

    content = {"figures": figures(15.432, 12), "baselines": {"random": {"figures": figures(5, 4)}}}
    write_json(model_folder / "evaluation.json", content)
    return model_folder


def test_list(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "ZOO", evaluated.parent)
    text = run("list").stdout
    assert "15.4/12.0" in text
    for words in ("clever-tiny", "19+5", "32", "random", "apache-2.0"):
        assert words in text


def test_list_says_whose_labels_went_into_the_weights() -> None:
    text = " ".join(run("list").stdout.split())
    assert (
        "clever-resnet18: distilled from EfficientNet-Lite2, which was trained with ImageNet-1k's "
        "labels, in the last 2 of 6 stages;" in text
    )
    assert "clever-efficientnet-lite0: adapted from EfficientNet-Lite0, which was" in text
    assert "clever-vit-tiny.ssl: trained without labels from random weights in 2 stages" in text


def _on_a_terminal(table: object, columns: int = 80) -> str:
    found = Console(width=columns, file=io.StringIO())
    found.print(table)
    assert isinstance(found.file, io.StringIO)
    return found.file.getvalue()


def test_tables_on_80_columns_cut_no_figure() -> None:
    protocols = {
        "knn": {c: {"full": {"top1": {"mean": 15.43}}} for c in ("plain", "rotated")},
        "invariance": {
            "rotation": {
                part: {"same_centred": {"mean": 0.9512}, "different_centred": {"mean": 0.0001234}}
                for part in ("full", "invariant", "equivariant")
            }
        },
        "equivariance": {"rotation": {"equivariant": {"mlp_r2": {"mean": 0.567}}}},
    }
    name, data = "clever-hub/clever-resnet18", "photos of things [CC0] \x1b[2J"
    model = ModelInfo(name, "resnet18", 409, 103, 64, data, protocols, "apache-2.0", 22_400_000)
    listed = _on_a_terminal(list_table([model]))
    for words in (name, "409+103", "15.4/15.4", "0.95/0.95", "0.57", "22", "apache-2.0"):
        assert words in listed.splitlines()[1], "one line for a model of the Hub"
    content = {
        "figures": protocols,
        "baselines": {"random": {"figures": protocols}, "pixels": {"figures": protocols}},
    }
    figures = _on_a_terminal(info_figures(content))
    assert figures.count("0.0001234") == 9
    assert "…" not in listed + figures


def test_words_of_strangers_are_shown_as_they_are(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((evaluated / "config.json").read_text())
    config["provenance"]["data"] = "photos [CC0] [/bold]\x1b[2Jgone"
    write_json(evaluated / "config.json", config)
    monkeypatch.setattr(shipped, "ZOO", evaluated.parent)
    for text in (
        run("list").stdout,
        *(run("info", evaluated, *more).stdout for more in ([], ["--all"])),
    ):
        assert r"photos [CC0] [/bold]\x1b[2Jgone" in text


def test_where_there_is_nothing_to_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shipped, "ZOO", tmp_path)
    assert run("list").stdout == "clever-hub ships no models that you can see.\n"


def test_a_model_without_figures_is_listed(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "ZOO", model_folder.parent)
    assert "–" in run("list").stdout
    text = run("info", model_folder, "--all").stdout
    assert "Measured, see" not in text
    assert re.search(r"measured +nothing", text)


def test_info_has_twelve_rows(evaluated: Path) -> None:
    config = json.loads((evaluated / "config.json").read_text())
    config["provenance"] |= {"data": "photos [CC0]", "photos": 1200, "start": {"init": "random"}}
    write_json(evaluated / "config.json", config)
    lines = run("info", evaluated).stdout.splitlines()
    names = [line.split()[0] for line in lines if not line.startswith(" ")]
    expected = "name is backbone input embedding how data heads projection measured files card"
    assert names == expected.split()
    text = "\n".join(lines)
    for words in (
        r"embedding +24 = 19 invariant \+ 5 equivariant",
        r"data +1,200 photos: photos \[CC0\]",
        r"measured +k-NN top-1 15\.4 % \(random weights 5\.0 %\); 2 figures in all",
        r"heads +none; clever-hub heads fits them",
        r"backbone +\w+ .*\d\.\d M parameters",
    ):
        assert re.search(words, text), words


def test_info_with_all_has_every_figure_hash_and_stage(evaluated: Path) -> None:
    config = json.loads((evaluated / "config.json").read_text())
    start = {"name": "clever-tiny", "epochs": 2.0, "start": {"init": "random"}}
    config["provenance"] |= {"method": "clever-dino", "epochs": 3.0, "start": start}
    write_json(evaluated / "config.json", config)
    text = run("info", evaluated, "--all").stdout
    for words in (
        "shortest side to 36 px (bicubic), centre crop 32 px",
        "knn · plain · full · top1",
        "15.43",
        "random weights",
        sha256_of(evaluated / "model.safetensors"),
    ):
        assert words in text
    for row in ("stage 1 +random weights", "stage 2 +2 epochs", "stage 3 +3 epochs, by CLeVER"):
        assert re.search(row, text), row
    assert re.search(r"knn · rotated · full · top1\W+12\W+4\W", text), "next to the baseline"


def test_info_as_json_keeps_everything(evaluated: Path) -> None:
    content = json.loads(run("info", evaluated, "--json").stdout)
    assert content["config"] == ModelConfig.load(evaluated).to_dict()
    assert content["evaluation"] == json.loads((evaluated / "evaluation.json").read_text())
    assert content["weights_sha256"] == sha256_of(evaluated / "model.safetensors")


def test_info_gives_the_recipe_alone_or_says_that_there_is_none(evaluated: Path) -> None:
    assert "--recipe: clever-tiny has none in its config.json" in fails(
        "info", evaluated, "--recipe"
    )
    config = json.loads((evaluated / "config.json").read_text())
    config["provenance"]["recipe"] = {"name": "mine", "run": {"epochs": 2}}
    write_json(evaluated / "config.json", config)
    assert json.loads(run("info", evaluated, "--recipe").stdout) == {
        "name": "mine",
        "run": {"epochs": 2},
    }


def test_an_unknown_model_is_one_clean_message() -> None:
    message = fails("info", "clever-resnet-of-nobody")
    assert "neither a folder nor a model" in message
    assert message.count("\n") == 1


def test_compare_shows_the_cosine_of_each_part(model_folder: Path, photos: dict[str, Path]) -> None:
    a, b = photos["chelsea"], photos["coffee"]
    text = run("compare", model_folder, a, b).stdout
    unit = clever_hub.from_pretrained(model_folder).encode([a, b], normalize=True)
    for part in (unit.invariant, unit.equivariant):
        assert f"{part[0] @ part[1]:.4f}" in text
    assert run("compare", model_folder, a, a).stdout.count("1.0000") == 3


def test_compare_names_an_image_that_is_missing(
    model_folder: Path, photos: dict[str, Path]
) -> None:
    assert "gone.jpg: no such file" in fails("compare", model_folder, photos["coffee"], "gone.jpg")


# embed.


@pytest.fixture
def folder(photos: dict[str, Path], tmp_path: Path) -> Path:
    """Four photos in two levels, and files that are no images."""
    root = tmp_path / "photos"
    (root / "deeper").mkdir(parents=True)
    for index, (name, path) in enumerate(photos.items()):
        Image.open(path).save(root / ("deeper" if index % 2 else "") / f"{name}.PNG")
    (root / "notes.txt").write_text("no image by its name")
    (root / "._coffee.jpg").write_text("what macOS leaves behind")
    return root


def test_embed_writes_a_row_for_each_image(
    model_folder: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "e.parquet"
    result = run("embed", model_folder, folder, "-o", out, "--batch-size", 3)
    assert result.exit_code == 0
    assert "4 of 4 images embedded" in result.stderr
    table = pq.read_table(out)
    paths = table["path"].to_pylist()
    assert paths == [str(path) for path in find_images([folder])]
    assert len(paths) == 4
    assert str(table.schema.field("invariant").type) == "fixed_size_list<element: float>[19]"
    assert str(table.schema.field("equivariant").type) == "fixed_size_list<element: float>[5]"
    expected = clever_hub.from_pretrained(model_folder).encode(paths)
    for part in ("invariant", "equivariant"):
        rows = np.array(table[part].to_pylist(), np.float32)
        np.testing.assert_allclose(rows, getattr(expected, part), atol=1e-5)
    assert table.schema.metadata == {
        b"clever_hub.model": b"clever-tiny",
        b"clever_hub.source": f"folder:{model_folder}".encode(),
        b"clever_hub.revision": b"",
        b"clever_hub.weights_sha256": sha256_of(model_folder / "model.safetensors").encode(),
        b"clever_hub.config": ModelConfig.load(model_folder).fingerprint().encode(),
        b"clever_hub.version": clever_hub.__version__.encode(),
        b"clever_hub.normalized": b"false",
        b"clever_hub.backend": b"torch",
        b"clever_hub.precision": b"float32",
        b"clever_hub.decode": b"exact",
        b"clever_hub.color_management": b"false",
        b"clever_hub.background": b"",
    }


def test_embed_leaves_a_part_out_that_the_model_has_not(
    config: ModelConfig, folder: Path, tmp_path: Path
) -> None:
    whole = CleverModel(replace(config, invariant_dim=config.num_features))
    out = tmp_path / "e.parquet"
    run("embed", whole.save_pretrained(tmp_path / "whole"), folder, "-o", out)
    table = pq.read_table(out)
    assert table.column_names == ["path", "invariant", "path_bytes"]
    assert len(table) == 4


def test_embed_can_write_unit_vectors(model_folder: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.parquet"
    run("embed", model_folder, folder, "-o", out, "--normalize")
    for part in ("invariant", "equivariant"):
        rows = np.array(pq.read_table(out)[part].to_pylist())
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_shards_become_row_groups(model_folder: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.parquet"
    run("embed", model_folder, folder, "-o", out, "--batch-size", 1, "--shard-size", 3)
    metadata = pq.ParquetFile(tmp_path / "e.parquet").metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [3, 1]


def test_many_bad_images_are_all_listed_where_no_table_keeps_them(
    model_folder: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    shutil.copy(photos["chelsea"], root / "cat.png")
    for number in range(101):
        (root / f"{number}.jpg").touch()
    for out, listed, rest in ((tmp_path / "v.parquet", 101, ""), (tmp_path / "v", 100, "skipped")):
        result = run("embed", model_folder, root, "-o", out, "--on-error", "skip")
        assert result.exit_code == 0, result.stderr
        assert result.stderr.count("the file is empty") == listed
        assert (f"101 in all; see _clever_hub/{rest}" in result.stderr) == bool(rest)


def test_bad_images_are_listed_at_the_end(model_folder: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (folder / "empty.jpg").touch()
    out = tmp_path / "e.parquet"
    result = run("embed", model_folder, folder, "-o", out)
    assert result.exit_code == 1
    end = result.stderr.splitlines()[-4:]
    assert end[0].startswith(f"skipped {folder}/broken.jpg: ")
    assert end[1] == f"skipped {folder}/empty.jpg: cannot be read: the file is empty"
    assert end[2].startswith("4 of 6 images embedded")
    assert end[3].startswith("Error: 2 of 6 images could not be read")
    assert pq.read_table(out).num_rows == 4
    assert run("embed", model_folder, folder, "-o", out, "--on-error", "skip").exit_code == 0


def test_when_no_image_can_be_read_nothing_is_written(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    out = tmp_path / "out" / "e.parquet"
    words = ("embed", model_folder, tmp_path / "empty.jpg", "-o", out, "--on-error", "skip")
    assert "none of the images could be read" in fails(*words)
    assert list(out.parent.iterdir()) == []


def test_an_interrupted_run_leaves_the_old_file(
    model_folder: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "e.parquet"
    run("embed", model_folder, folder, "-o", out)
    before = out.read_bytes()
    encode = EncoderMixin.encode_batches

    def interrupted(self: EncoderMixin, *args: Any, **options: Any) -> Iterator[EncodedBatch]:
        yield next(iter(encode(self, *args, **options)))
        raise KeyboardInterrupt

    monkeypatch.setattr(EncoderMixin, "encode_batches", interrupted)
    assert run("embed", model_folder, folder, "-o", out, "--batch-size", 1).exit_code != 0
    assert out.read_bytes() == before
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "missing", "no such file or folder"),
        (lambda root: root, "no images in this folder"),
    ],
)
def test_nothing_to_embed_is_an_error(
    model_folder: Path, tmp_path: Path, make: Any, message: str
) -> None:
    (tmp_path / "folder").mkdir()
    path = make(tmp_path / "folder")
    assert message in fails("embed", model_folder, path, "-o", tmp_path / "e.parquet")


def test_no_paths_is_a_usage_error(model_folder: Path) -> None:
    result = run("embed", model_folder, "-o", "e.parquet")
    assert result.exit_code == 2
    assert "Missing argument" in result.stderr


def test_an_output_that_cannot_be_written_is_an_error(
    model_folder: Path, folder: Path, tmp_path: Path
) -> None:
    assert "got the folder" in fails("embed", model_folder, folder, "-o", tmp_path)
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "e.parquet"
    assert f"{out}: cannot be written" in fails("embed", model_folder, folder, "-o", out)


def test_a_full_disk_at_the_beginning_leaves_the_old_file(
    model_folder: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "e.parquet"
    run("embed", model_folder, folder, "-o", out)
    before = out.read_bytes()

    def full(path: Path, *_: Any, **__: Any) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "ParquetWriter", full)
    said = fails("embed", model_folder, folder, "-o", out)
    assert f"{out}: cannot be written: No space left on device" in said
    assert out.read_bytes() == before
    assert sorted(out.parent.iterdir()) == [out.with_name(".e.parquet.parts"), out]


def test_a_file_error_of_any_verb_is_one_clean_message(
    model_folder: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    said = fails("export", model_folder, "--out", tmp_path / "file" / "model")
    assert str(tmp_path / "file") in said
    assert "too long" in fails("info", "x" * 300)
    os.mkfifo(tmp_path / "pipe.parquet")
    photo = photos["astronaut"]
    said = fails("embed", model_folder, photo, "-o", tmp_path / "pipe.parquet")
    assert "expected the name of a file" in said
    assert (tmp_path / "pipe.parquet").is_fifo()


def test_parquet_missing_says_how_to_install(
    model_folder: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    said = fails("embed", model_folder, folder, "-o", "e.parquet")
    assert 'pip install "clever-hub[onnx]"' in said


def test_find_images_gives_each_file_once(folder: Path) -> None:
    photo = folder / "astronaut.PNG"
    found = list(find_images([photo, folder, folder / "notes.txt"]))
    assert found[0] == photo
    assert len(found) == len(set(found)) == 5, "a file that is named is taken whatever its ending"


def test_find_images_follows_links_to_folders_once(folder: Path, tmp_path: Path) -> None:
    album = tmp_path / "album"
    album.mkdir()
    (album / "linked").symlink_to(folder)
    (folder / "deeper" / "back").symlink_to(album)  # a circle
    found = list(find_images([album]))
    assert sorted(path.name for path in found) == sorted(
        path.name for path in folder.rglob("*.PNG")
    )
    assert list(find_images([album, album / ".." / "album", folder])) == found


def test_find_images_refuses_a_folder_that_cannot_be_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def locked(path: Any) -> Any:
        if Path(path).name == "deeper":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", locked)
        with pytest.raises(DataError, match="deeper: the folder cannot be read: Permission denied"):
            list(find_images([folder]))
        deeper = next(folder.rglob("deeper"))
        left_out: list[OSError] = []
        found = list(find_images([folder], left_out.append))
        assert found
        assert not any(path.is_relative_to(deeper) for path in found)
        assert [error.filename for error in left_out] == [str(deeper)]
        with pytest.raises(DataError, match="deeper: the folder cannot be read"):
            list(find_images([deeper], left_out.append))


def test_find_images_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        list(find_images([tmp_path / "nowhere"]))


def test_real_photos_by_the_folder(
    model_folder: Path, imagenet_photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "e.parquet"
    assert run("embed", model_folder, imagenet_photos, "-o", out).exit_code == 0
    rows = np.array(pq.read_table(out)["invariant"].to_pylist(), np.float32)
    assert rows.shape == (125, 19)
    assert np.isfinite(rows).all()
    assert len(np.unique(rows.round(3), axis=0)) == 125


# Names of options, completion, narrow terminals.


def test_help_is_a_short_option_of_the_command_and_of_every_verb() -> None:
    for verb in app_module.verbs():
        assert run(verb, "-h").stdout == run(verb, "--help").stdout
    assert "--install-completion" in run("-h").stdout


@pytest.mark.parametrize("verb", ["embed", "duplicates", "attention", "export", "verify"])
def test_what_a_verb_writes_is_named_by_one_option(verb: str) -> None:
    text = run(verb, "--help").stdout
    assert re.search(r"--output +-o ", text)
    assert not re.search(r"--(out|report)\b(?!put)", text)


def test_the_earlier_name_of_the_option_still_works(
    model_folder: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "e.parquet"
    assert run("embed", model_folder, folder, "--out", out).exit_code == 0
    assert pq.read_metadata(out).num_rows == 4


@pytest.mark.parametrize(("typed", "expected"), [("em", ["embed"]), ("v", ["views", "verify"])])
def test_the_shell_completes_verbs(typed: str, expected: list[str]) -> None:
    environment = {
        "_CLEVER_HUB_COMPLETE": "complete_bash",
        "COMP_WORDS": f"clever-hub {typed}",
        "COMP_CWORD": "1",
    }
    result = runner.invoke(app, [], env=environment, prog_name="clever-hub")
    assert result.stdout.split() == expected


def test_the_list_on_40_columns_cuts_no_name_and_no_figure(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "ZOO", evaluated.parent)
    found = Console(width=40, file=io.StringIO())
    monkeypatch.setattr("clever_hub.cli.list.output", lambda: found)
    assert run("list").exit_code == 0
    assert isinstance(found.file, io.StringIO)
    text = found.file.getvalue()
    for words in ("clever-tiny\n", "19+5", "15.4/12.0", "apache-2.0", "clever-hub info"):
        assert words in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 40


def test_a_pipe_that_knows_no_arrows(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from clever_hub.cli.app import main; main()", "list"]
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "clever-resnet18" in done.stdout


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("pass precision='fp32'", "pass --precision fp32"),
        ("set run.precision=fp32, or device=cpu", "set run.precision=fp32, or --device cpu"),
        ("my_device=cuda", "my_device=cuda"),
    ],
)
def test_keywords_become_options_and_keys_of_recipes_stay(message: str, shown: str) -> None:
    assert app_module._in_words_of_the_command_line(message) == shown


def test_find_images_takes_a_folder_whose_photos_were_all_found_below_it(tmp_path: Path) -> None:
    photo = tmp_path / "n" / "2024" / "may" / "a.jpg"
    photo.parent.mkdir(parents=True)
    photo.touch()
    for paths in (["n/2024", "n"], ["n/2024/may", "n/2024", "n"], ["n", "n/2024"]):
        assert list(find_images(tmp_path / path for path in paths)) == [photo]


def test_a_picture_among_the_photos_would_be_the_next_runs_photo(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"lies in .* where photos are searched"):
        check_not_input(folder / "sub" / "groups.png", [folder])
    check_not_input(folder / "groups.html", [folder])
    check_not_input(folder.parent / "groups.png", [folder])


def test_folders_named_like_options_keep_their_names() -> None:
    say = app_module._in_words_of_the_command_line
    assert say("data/device=cam1/a.jpg: gone") == "data/device=cam1/a.jpg: gone"
    assert say("device=cam1/a.jpg: gone") == "device=cam1/a.jpg: gone"
    assert say("take device='cpu', not backend=onnx") == "take --device cpu, not --backend onnx"
