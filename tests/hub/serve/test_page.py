"""The page in a real browser: by pointer, by keyboard, on a phone, for a screen reader."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, Route, expect

from clever_hub.serve.app import PAGE
from tests.hub.serve.conftest import ServerProcess

if TYPE_CHECKING:
    from clever_hub.backends.onnx import OnnxModel

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
TOUCH = 44  # CSS pixels; WCAG 2.2, 2.5.5


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of one model."""
    server = ServerProcess(tmp_path_factory.mktemp("page") / "server.log")
    yield f"http://127.0.0.1:{server.port}/"
    server.end()


@pytest.fixture
def opened(browser: Browser, url: str) -> Iterator[Callable[..., Page]]:
    """Opens the page and waits until it is complete; an error in its console fails the test."""
    pages, errors = list[Page](), list[str]()

    def open_page(size: dict[str, int] = DESKTOP, *, wait: bool = True, to: str = "") -> Page:
        page = browser.new_page(viewport=size)  # type: ignore[arg-type]
        pages.append(page)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.goto(to or url)
        if wait:
            settled(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not [e for e in errors if "the server responded with a status" not in e]


def settled(page: Page) -> None:
    """Wait until the page shows what is set, all of it."""
    page.wait_for_function(
        """() => {
            const turn = document.getElementById("turn-value").textContent;
            const text = (id) => document.getElementById(id).textContent;
            return document.querySelectorAll("#by-pose li").length === 5
                && document.querySelector("main").ariaBusy === "false"
                && text("now").includes(`by ${turn}:`)
                && text("believed").includes(`Set: ${turn}.`);
        }""",
        timeout=60_000,
    )


def now(page: Page) -> tuple[float, float]:
    """The similarity in the invariant part and in the equivariant part."""
    text = (page.text_content("#now") or "").replace("−", "-")
    words = text.replace(",", "").split()
    return float(words[words.index("invariant") + 1]), float(words[words.index("equivariant") + 1])


def curves(page: Page) -> list[str]:
    return [c.get_attribute("points") or "" for c in page.query_selector_all("polyline.curve")]


def table(page: Page) -> dict[str, list[float]]:
    rows = page.query_selector_all("#table tbody tr")
    texts = [[c.text_content() or "" for c in row.query_selector_all("th, td")] for row in rows]
    return {head: [float(v.replace("−", "-")) for v in values] for head, *values in texts}


def set_turn(page: Page, degrees: int) -> None:
    page.locator("#turn").fill(str(degrees))
    settled(page)


def believed(page: Page) -> int:
    text = (page.text_content("#believed") or "").replace("−", "-")
    return int(text.partition("Believed: ")[2].partition("°")[0])


# By the heads of the default model, and without heads, by comparing turned copies.
@pytest.mark.parametrize("model", ["clever-efficientnet-lite0", "clever-vit-tiny.ssl"])
def test_a_turned_photo_keeps_its_content_and_the_dial_finds_the_turn(
    opened: Callable[..., Page], tmp_path: Path, model: str
) -> None:
    server = ServerProcess(tmp_path / "server.log", model=model)
    page = opened(to=f"http://127.0.0.1:{server.port}/")
    set_turn(page, 0)
    assert now(page) == (1, 1)
    for degrees in (90, -60, 172):
        set_turn(page, degrees)
        invariant, equivariant = now(page)
        assert equivariant < invariant < 1
        assert abs((believed(page) - degrees + 180) % 360 - 180) <= 15
        label = page.get_by_role("img", name=f"Set: {degrees}°".replace("-", "−"))
        assert label.is_visible()
    figures = table(page)
    assert len(figures) == 25
    assert figures["0°"] == [1, 1]
    assert figures["180°"] == figures["−180°"]
    assert all(-1 <= value <= 1 for row in figures.values() for value in row)
    server.end()


def seen(photo: Image.Image, degrees: float) -> bytes:
    """What the page draws, drawn by Pillow: the middle square, turned, through a disc."""
    edge = min(photo.size)
    left, top = (photo.width - edge) // 2, (photo.height - edge) // 2
    square = photo.convert("RGB").resize((256, 256), box=(left, top, left + edge, top + edge))
    turned = square.rotate(degrees, Image.Resampling.BICUBIC)
    disc = Image.new("L", turned.size, 0)
    ImageDraw.Draw(disc).ellipse((0, 0, 255, 255), fill=255)
    file = io.BytesIO()
    Image.composite(turned, Image.new("RGB", turned.size, (124, 116, 104)), disc).save(file, "PNG")
    return file.getvalue()


def test_the_figures_are_those_of_the_model(
    opened: Callable[..., Page], onnx_model: OnnxModel, photos: dict[str, Path]
) -> None:
    gallery = [Image.open(path) for path in (PAGE / "gallery").glob("*.jpg")]
    assert len(gallery) == 6
    views = [seen(photo, turn) for photo in gallery for turn in range(-135, 181, 45)]
    pair = [seen(Image.open(photos["chelsea"]), 0), seen(Image.open(photos["coffee"]), 60)]
    of_gallery, of_pair = (onnx_model.encode(one).normalized() for one in (views, pair))
    expected = []
    for part in ("invariant", "equivariant"):
        a, b = getattr(of_pair, part) - getattr(of_gallery, part).mean(axis=0)
        expected.append(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
    page = opened()
    page.locator("#a-file").set_input_files(photos["chelsea"])
    page.locator("#b-file").set_input_files(photos["coffee"])
    expect(page.locator("#b-name")).to_contain_text("coffee")
    set_turn(page, 60)
    assert now(page) == pytest.approx(expected, abs=0.03)


def test_other_photos_move_both_curves_and_join_the_gallery(
    opened: Callable[..., Page], photos: dict[str, Path]
) -> None:
    page = opened()
    before = table(page)
    assert len(curves(page)) == 2
    page.locator("#b-file").set_input_files(photos["rocket"])
    expect(page.locator("#b-name")).to_contain_text("rocket")
    settled(page)
    after = table(page)
    assert all(abs(a - b) > 0.1 for a, b in zip(before["0°"], after["0°"], strict=True))
    assert "7 photos" in (page.text_content("#gallery-about") or "")
    # Its own copies are the nearest by content, the shipped one's among them.
    assert all(
        "rocket" in (item.text_content() or "")
        for item in page.query_selector_all("#by-content li")
    )
    page.get_by_role("button", name="Make B the same photo as A").click()
    settled(page)
    assert table(page) == before


def test_mirroring_is_another_view(opened: Callable[..., Page]) -> None:
    page = opened()
    set_turn(page, 0)
    page.get_by_label("Mirror B").check()
    expect(page.locator("#b-name")).to_contain_text("mirrored")
    expect(page.locator("#now")).not_to_contain_text("equivariant 1.00")
    assert now(page)[1] < 1


def test_it_works_by_keyboard_alone(opened: Callable[..., Page]) -> None:
    page = opened()
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "() => document.activeElement.id || document.activeElement.dataset.id"
                " || document.activeElement.tagName"
            )
        )
        if reached[-1] == "turn":
            break
    picks = [name for name in reached if "#" in name]
    others = [name for name in reached if "#" not in name]
    assert others == ["A", "model", "a-file", "b-file", "mirror", "same", "turn"]
    assert len(picks) == 6
    page.locator("#turn").focus()
    page.keyboard.press("Home")
    settled(page)
    assert page.text_content("#turn-value") == "−180°"
    page.keyboard.press("ArrowRight")
    settled(page)
    assert page.text_content("#turn-value") == "−179°"
    page.get_by_role("button", name="Take the coffee as A").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#a-name")).to_have_text("coffee")
    outline = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_every_part_has_a_name_for_screen_readers(opened: Callable[..., Page]) -> None:
    page = opened()
    for role, name in (
        ("combobox", "Model"),
        ("button", "Choose A"),
        ("button", "Choose B"),
        ("slider", "Turn B"),
        ("checkbox", "Mirror B"),
        ("img", "Photo A: astronaut, upright"),
        ("img", "Photo B: astronaut, turned by 30°"),
        ("img", "Similarity of A and B at 30°"),
        ("img", "Set: 30°. Believed:"),
        ("heading", "How alike are A and B?"),
        ("link", "Skip to the photos"),
    ):
        assert page.get_by_role(role, name=name).count() == 1, (role, name)  # type: ignore[arg-type]
    assert page.get_by_role("status").text_content() == page.text_content("#now")
    assert page.get_by_role("slider").get_attribute("aria-valuetext") == "30 degrees"
    assert page.locator("html").get_attribute("lang") == "en"
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, img, canvas, svg")]
            .filter((e) => !(e.textContent.trim() || e.alt || e.querySelector("[alt]")
                || e.labels?.length || e.getAttribute("aria-label")
                || e.getAttribute("aria-hidden")))
            .map((e) => e.outerHTML)"""
    )
    assert unnamed == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(opened: Callable[..., Page], scheme: str) -> None:
    page = opened()
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    found = page.evaluate(
        """() => {
            const rgb = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
            const light = (c) => rgb(c).map((v) => v / 255)
                .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
                .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
            const ground = (e) => {
                const colour = getComputedStyle(e).backgroundColor;
                const none = colour.endsWith(", 0)") && e.parentElement;
                return none ? ground(e.parentElement) : colour;
            };
            const texts = [...document.querySelectorAll("body *")].filter(
                (e) => e.checkVisibility()
                    && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()));
            return texts.map((e) => {
                const style = getComputedStyle(e);
                const ink = e.namespaceURI.endsWith("svg") ? style.fill : style.color;
                const [a, b] = [light(ink), light(ground(e))].sort((x, y) => y - x);
                return [(a + 0.05) / (b + 0.05), e.outerHTML.slice(0, 90)];
            });
        }"""
    )
    assert len(found) > 40
    assert [entry for entry in found if entry[0] < 4.5] == []  # WCAG 2.2, 1.4.3


def test_it_fits_a_phone(opened: Callable[..., Page]) -> None:
    page = opened(PHONE)
    width = page.evaluate("() => document.documentElement.scrollWidth")
    assert width <= PHONE["width"]
    small = page.evaluate(
        """(least) => [...document.querySelectorAll(".button, button, select, #turn")]
            .filter((e) => e.checkVisibility())
            .filter((e) => e.getBoundingClientRect().height < least).map((e) => e.outerHTML)""",
        TOUCH,
    )
    assert small == []
    set_turn(page, -90)
    assert abs(believed(page) + 90) <= 15
    # The slider stays in sight of what it moves.
    page.locator("#dial-title").scroll_into_view_if_needed()
    expect(page.locator("#turn")).to_be_in_viewport(ratio=1)
    expect(page.locator("#dial")).to_be_in_viewport(ratio=1)


def test_what_is_no_image_is_named(opened: Callable[..., Page], tmp_path: Path) -> None:
    page = opened()
    bad = tmp_path / "notes.txt"
    bad.write_text("no image")
    page.locator("#a-file").set_input_files(bad)
    alert = page.get_by_role("alert")
    expect(alert).to_have_text("notes.txt: this browser cannot open it as an image.")
    assert page.text_content("#a-name") == "astronaut"


@pytest.mark.parametrize("place", ["body", "[data-slot=b]"])
def test_two_dropped_photos_become_a_and_b(opened: Callable[..., Page], place: str) -> None:
    page = opened()
    files = [list((PAGE / f"gallery/{name}.jpg").read_bytes()) for name in ("coffee", "rocket")]
    page.evaluate(
        """([files, place]) => {
            const data = new DataTransfer();
            files.forEach((bytes, i) =>
                data.items.add(new File([new Uint8Array(bytes)], `photo-${i}.png`)));
            document.querySelector(place).dispatchEvent(
                new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        [files, place],
    )
    expect(page.locator("#b-name")).to_contain_text("photo-1")
    assert page.text_content("#a-name") == "photo-0.png"
    settled(page)
    assert now(page)[0] < 0.95


def test_heads_move_the_dial(opened: Callable[..., Page], url: str) -> None:
    """The page's side of it; the server's answer has the shape of ``Relation.to_dict``."""

    def with_heads(route: Route) -> None:
        content = route.fetch().json()
        for entry in content["data"]:
            entry["heads"] = True
        route.fulfill(json=content)

    relation = {
        "object": "relation",
        "angle": 72.4,
        "angle_error": 8.0,
        "same": 0.97,
        "mirrored": True,
    }
    page = opened(wait=False, to="about:blank")
    page.route("**/v1/models", with_heads)
    page.route("**/v1/relate", lambda route: route.fulfill(json=relation))
    page.goto(url)
    settled(page)
    text = page.text_content("#believed")
    assert text == "Believed: 72° ± 8°. Set: 30°. It takes B to be mirrored. Same photo: 97 %."
    assert "heads say so" in (page.text_content("#how") or "")
    relation["angle"] = None
    set_turn(page, 31)
    assert (page.text_content("#believed") or "").startswith("Believed: unknown")


def test_the_heads_of_a_served_model_are_asked(
    opened: Callable[..., Page], headed: Path, tmp_path: Path
) -> None:
    server = ServerProcess(tmp_path / "heads.log", model=str(headed))
    try:
        page = opened(to=f"http://127.0.0.1:{server.port}/")
        with page.expect_response("**/v1/relate") as answered:
            page.locator("#turn").fill("100")
        answer = answered.value.json()
        settled(page)
        assert answer["object"] == "relation"
        angle = "unknown" if answer["angle"] is None else f"{round(answer['angle'])}°"
        text = page.text_content("#believed") or ""
        assert text.startswith(f"Believed: {angle.replace('-', '−')}")
        by = {"pixels": "Measured on the pixels", "model": "heads say so"}[answer["by"]]
        assert by in (page.text_content("#how") or "")
    finally:
        server.end()


def test_a_full_server_is_asked_again(opened: Callable[..., Page], url: str) -> None:
    refused = [3]

    def full(route: Route) -> None:
        refused[0] -= 1
        if refused[0] < 0:
            route.continue_()
            return
        error = {"error": {"message": "full", "code": "overloaded"}}
        route.fulfill(status=503, headers={"Retry-After": "0"}, body=json.dumps(error))

    page = opened(wait=False, to="about:blank")
    page.route("**/v1/embeddings", full)
    page.goto(url)
    settled(page)
    assert refused[0] < 0
    assert page.get_by_role("alert").count() == 0


def test_the_key_is_asked_for(opened: Callable[..., Page], tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "key.log", "--api-key", "s3cret")
    try:
        page = opened(wait=False, to=f"http://127.0.0.1:{server.port}/")
        expect(page.get_by_role("alert")).to_have_text("This server asks for a key.")
        assert not page.get_by_role("link", name="openapi.json").is_visible(), "it sends no key"
        for wrong in ("s3crex", "ключ"):
            page.get_by_label("API key").fill(wrong)
            page.keyboard.press("Enter")
            expect(page.get_by_role("alert")).to_have_text("This key is not the server's.")
            assert page.locator("#key-form").is_visible()
        page.get_by_label("API key").fill("s3cret")
        page.keyboard.press("Enter")
        settled(page)
        assert not page.locator("#key-form").is_visible()
        assert page.get_by_role("alert").count() == 0
    finally:
        server.end()


def test_a_file_that_is_no_image_stays_named_while_the_page_computes(
    opened: Callable[..., Page], tmp_path: Path
) -> None:
    bad = tmp_path / "notes.txt"
    bad.write_text("no image")
    page = opened(wait=False)
    page.wait_for_function("() => document.querySelector('main').ariaBusy === 'true'")
    page.locator("#a-file").set_input_files(bad)
    settled(page)
    expect(page.get_by_role("alert")).to_have_text(
        "notes.txt: this browser cannot open it as an image."
    )
    page.get_by_role("button", name="Take the coffee as A").click()
    settled(page)
    assert page.get_by_role("alert").count() == 0


def test_a_model_that_is_chosen_while_another_computes_has_figures_of_its_own(
    opened: Callable[..., Page], tmp_path: Path
) -> None:
    # Of other lengths: what came late of the first was taken for the second's.
    server = ServerProcess(tmp_path / "two.log", "clever-vit-tiny.ssl", model="clever-resnet18")
    try:
        address = f"http://127.0.0.1:{server.port}/"
        alone = opened(to=address)
        alone.get_by_label("Model").select_option("clever-vit-tiny.ssl")
        expect(alone.locator("#about")).to_contain_text("153 + 39")
        alone.wait_for_function("() => document.querySelector('main').ariaBusy === 'false'")
        expected = table(alone)

        page = opened(wait=False, to="about:blank")
        held: list[Route] = []

        def hold(route: Route) -> None:
            if held:
                route.continue_()
            held.append(route)

        page.route("**/v1/embeddings", hold)
        page.goto(address)
        while not held:
            page.wait_for_timeout(20)
        page.get_by_label("Model").select_option("clever-vit-tiny.ssl")
        held[0].continue_()
        settled(page)
        page.wait_for_function("() => document.querySelector('main').ariaBusy === 'false'")
        assert table(page) == expected
    finally:
        server.end()


@pytest.mark.parametrize("most", [5, 1])
def test_a_server_of_small_requests_is_asked_in_several(
    opened: Callable[..., Page], tmp_path: Path, most: int
) -> None:
    server = ServerProcess(tmp_path / "small.log", "--max-inputs", str(most))
    try:
        page = opened(to=f"http://127.0.0.1:{server.port}/")
        assert page.get_by_role("alert").count() == 0
        assert len(table(page)) == 25
    finally:
        server.end()
