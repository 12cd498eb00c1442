"""The site is true: what its pages and notebooks say to run, runs and prints what they say.

On a page, ``python`` and ``sh`` are run, in order, as one session in a folder with the photos that
the pages name; of ``sh``, the lines of ``clever-hub``. What needs a network, a server, a GPU, hours
stands in ``py`` and ``bash``, and there the options are checked.
"""

from __future__ import annotations

import ast
import contextlib
import io
import itertools
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clever_hub.cli.app import app, verbs

if TYPE_CHECKING:
    from playwright.sync_api import Browser

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
NOTEBOOKS = [path for path in PAGES if path.parent.name == "notebooks"]
BLOCK = re.compile(r"^```(python|sh|py|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CELL = re.compile(r"^```\{code-cell\}.*?\n((?::.*\n)*)(.*?)^```", re.MULTILINE | re.DOTALL)
PRINTED = re.compile(r"^print\(.*\)  # (.+)$", re.MULTILINE)


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and code of the blocks of a page."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def commands(code: str) -> list[list[str]]:
    """The words of each ``clever-hub …`` line; what is piped to it stands before it."""
    lines = code.replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    found = [line[line.index("clever-hub") + 1 :] for line in words if "clever-hub" in line]
    return [line[: line.index("|")] if "|" in line else line for line in found]


def identifier(page: Path) -> str:
    """A page's name in the test's."""
    return page.relative_to(DOCS).with_suffix("").as_posix()


# Their photos/ is a folder of hundreds, for which the pieces stand in.
MANY_PHOTOS = ("jobs/split", "train/own-photos")
RUN = [page for page in PAGES if {"python", "sh"} & {language for language, _ in blocks(page)}]


@pytest.fixture(scope="session")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photos that the pages name: five from scikit-image, and copies of some."""
    import skimage.data

    folder = tmp_path_factory.mktemp("album")
    for name in ("photos", "train", "validation"):
        (folder / name).mkdir()
    named = {"chelsea": "cat", "camera": "photographer"}
    five = {
        named.get(name, name): Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        for name in ("astronaut", "chelsea", "coffee", "rocket", "camera")
    }
    for name, image in five.items():
        for place in ("photos", "train"):
            image.save(folder / place / f"{name}.jpg", quality=95)
    turned = five["cat"].transpose(Image.Transpose.ROTATE_90)
    for name in ("photos/cat-turned.jpg", "validation/copy.jpg", "copy.jpg"):
        turned.save(folder / name, quality=90)
    astronaut = five["astronaut"]
    astronaut.save(folder / "a.jpg", quality=95)
    astronaut.transpose(Image.Transpose.ROTATE_90).save(folder / "b.jpg", quality=95)
    for name in ("cat.jpg", "query.jpg"):
        five["cat"].save(folder / name, quality=95)
    for name, image in five.items():  # 24 pieces of each
        (folder / "pieces" / name).mkdir(parents=True)
        for left, top in itertools.product(range(0, 300, 50), range(0, 200, 50)):
            piece = image.crop((left, top, left + 96, top + 96))
            piece.save(folder / "pieces" / name / f"{left}-{top}.jpg", quality=95)
    for name, place in (("train", "photos"), ("validation", "validation")):
        files = [path.read_bytes() for path in sorted((folder / place).iterdir())]
        pq.write_table(pa.table({"image": files}), folder / f"{name}.parquet")
    (folder / "pairs.csv").write_text("a,b\ncat.jpg,copy.jpg\na.jpg,b.jpg\n", encoding="utf-8")
    return folder


@pytest.fixture
def workplace(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the album, and the current folder."""
    shutil.copytree(album, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("CLEVER_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "work"


def run(words: list[str]) -> None:
    """Run a line of the command line here. `leaks` ends with 1 where it has found some."""
    code = app(words, standalone_mode=False, prog_name="clever-hub")
    assert code in ((1,) if words[0] == "leaks" else (None, 0)), f"{words}: {code}"


def run_python(code: str, name: str, namespace: dict[str, Any]) -> list[str]:
    """Run code; what it printed, in lines."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, name, "exec", dont_inherit=True), namespace)
    return printed.getvalue().splitlines()


def run_cell(code: str, name: str, namespace: dict[str, Any]) -> None:
    """Run a cell; show the value of its last line as a notebook does, if that is a picture."""
    *rest, last = ast.parse(code).body
    exec(compile(ast.Module(rest, []), name, "exec", dont_inherit=True), namespace)
    if isinstance(last, ast.Expr):
        value = eval(
            compile(ast.Expression(last.value), name, "eval", dont_inherit=True), namespace
        )
        if isinstance(value, Image.Image):
            value.load()
    else:
        exec(compile(ast.Module([last], []), name, "exec", dont_inherit=True), namespace)


@pytest.mark.parametrize("page", RUN, ids=identifier)
def test_what_a_page_says_runs(page: Path, workplace: Path) -> None:
    if identifier(page) in MANY_PHOTOS:
        shutil.rmtree(workplace / "photos")
        (workplace / "pieces").rename(workplace / "photos")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for language, code in blocks(page):
        if language == "sh":
            for words in commands(code):
                run(words)
        elif language == "python":
            expected = PRINTED.findall(code)
            printed = run_python(code, page.name, namespace)
            assert [line for line in printed if line in expected] == expected, printed


@pytest.mark.parametrize("page", PAGES, ids=identifier)
def test_a_page_turns_photos_as_the_camera_was_held(page: Path) -> None:
    """Pillow alone opens a phone's photo sideways; what does its own opening turns it."""
    sideways = re.compile(r"(?<!exif_transpose\()Image\.open\([^()]*\)\.convert")
    assert not sideways.search(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page not in NOTEBOOKS and blocks(page)], ids=identifier
)
def test_every_command_on_a_page_has_its_options(page: Path) -> None:
    for language, code in blocks(page):
        for words in commands(code) if language in ("sh", "bash") else []:
            check_options(words)


def check_options(words: list[str]) -> None:
    """Parse a line of the command line, without looking at files or running it."""
    import typer

    verb, *rest = words
    assert verb in verbs()
    command = typer.main.get_command(app).get_command(None, verb)  # type: ignore[attr-defined]
    context = command.context_class(command, info_name=verb)
    command.make_parser(context).parse_args(args=rest)  # raises NoSuchOption


@pytest.mark.parametrize("page", NOTEBOOKS, ids=identifier)
def test_a_notebook_runs(page: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder, as one program; a line `!clever-hub …` is run here."""
    (workplace / "empty").mkdir()
    monkeypatch.chdir(workplace / "empty")
    cells = [cell for _, cell in CELL.findall(page.read_text(encoding="utf-8"))]
    assert len(cells) >= 3
    namespace: dict[str, Any] = {"__name__": "__main__"}
    try:
        for cell in cells:
            if cell.startswith("!"):
                for words in commands(cell[1:]):
                    run(words)
            else:
                run_cell(cell, page.name, namespace)
    finally:
        for started in namespace.values():
            if isinstance(started, subprocess.Popen):
                started.kill()
                started.wait()


def test_the_built_site_is_searched_without_a_server(browser: Browser) -> None:
    """Opened as a file, with no network: `.ci/run` asks for this test after `make docs`."""
    site = DOCS / "_build" / "html"
    if not (site / "index.html").is_file():
        pytest.skip("make docs has not been run")
    asked: list[str] = []
    page = browser.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.goto((site / "index.html").as_uri())
    page.fill("input[name=q]", "orthogonality")
    page.press("input[name=q]", "Enter")
    # Results appear one after the other.
    page.wait_for_selector('ul.search li a:text-is("Method")')
    found = [link.inner_text() for link in page.query_selector_all("ul.search li a")]
    assert "Method" in found
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    page.close()
