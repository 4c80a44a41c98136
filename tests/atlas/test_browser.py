"""The pages of an atlas in a real browser: Chromium, driven by Playwright, from disk and from a server, wide and narrow. The
atlas is drawn (tests/atlas/example.py). In every test no error comes to the console, and nothing is asked of another place."""
import base64
import io
import json
import re
import shutil
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.atlas import example

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright")

DOT = "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACH5BAAAAAAALAAAAAABAAEAAAICRAEAOw=="
SMALL = [("conv1", 3, 23, 5, 2), ("fc", None, 1, None, None)]
FAKE_CAMERA = "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"
ADDRESSES = {"": "Atlas of small <i>net</i>", "#conv1": "conv1", "#block%2Fconv2": "block/conv2", "#conv3/4": "conv3 / unit 4",
             "#conv1/11": "conv1 / unit 11", "#fc/2": "fc / unit 2", "#pictures": "Pictures", "#picture/3": example.HOSTILE[3],
             "#compare": "Compare", "#compare/conv3": "Compare / conv3", "#look": "A picture of your own"}


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *FAKE_CAMERA])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return example.write(tmp_path_factory.mktemp("atlas"))


class Visitor:
    """Somebody who looks at pages, and keeps what went wrong with them."""

    def __init__(self, browser, at, width=1440, **how):
        self.context = browser.new_context(viewport={"width": width, "height": 900}, **how)
        self.page, self.at, self.wrong, self.asked = self.context.new_page(), at, [], []
        self.page.set_default_timeout(5000)
        self.page.on("console", lambda message: message.type in ("error", "warning") and self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.wrong.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(unquote(request.url)))

    def visit(self, address):
        """Go there as by the address bar, and wait until it is shown."""
        self.page.goto(self.at + address)
        return self.shown(address)

    def shown(self, address):
        self.page.wait_for_selector(f"main[data-page='{address or '#'}']")
        return self.page

    def texts(self, selector):
        return self.page.locator(selector).all_text_contents()

    def until(self, expression):
        """Wait until it is true in the page; the pages' policy keeps Playwright from doing that there."""
        last = time.monotonic() + 5
        while not self.page.evaluate(expression):
            assert time.monotonic() < last, expression
            time.sleep(0.02)

    def widths(self):
        return self.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")

    def close(self, forgiven=()):
        self.context.close()
        self.check(forgiven)

    def check(self, forgiven=()):
        """Nothing went wrong, and nothing was asked of another place."""
        assert [text for text in self.wrong if not any(part in text for part in forgiven)] == []
        own = self.at.removesuffix("index.html")
        assert [url for url in self.asked if not url.startswith((own, unquote(own), "data:", "blob:"))] == []


@pytest.fixture(scope="module")
def visitor(browser, root):
    """From disk, at 1440 pixels: one for all, as each begins a process of Chromium's."""
    visitor = Visitor(browser, (root/"index.html").as_uri())
    yield visitor
    visitor.context.close()


@pytest.fixture
def visit(visitor):
    """Who comes for the first time: the pages have kept nothing from a test before."""
    visitor.page.goto("about:blank")
    visitor.page.mouse.move(0, 0)
    visitor.wrong.clear()
    visitor.asked.clear()
    yield visitor
    visitor.page.evaluate("localStorage.clear()")
    visitor.check()


def data(root, name):
    text = (root/"data"/f"{name}.js").read_text()
    return json.loads(re.fullmatch(r"atlas\.receive\(.+?, (\{.*\})\);\n", text)[1])


@pytest.mark.parametrize("width, scheme", [(390, "light"), (1440, "dark")])
def test_every_page_is_drawn_and_fits_its_window(browser, root, width, scheme):
    visitor = Visitor(browser, (root/"index.html").as_uri(), width, color_scheme=scheme)
    for address, heading in ADDRESSES.items():
        page = visitor.visit(address)
        assert page.locator("h1").inner_text() == heading
        wide, window = visitor.widths()
        assert wide <= window, address
        assert page.title() == "Atlas of small <i>net</i>" if not address else page.title().endswith(" · small <i>net</i>")
        assert page.locator("img:not([alt]), [role=img]:not([aria-label])").count() == 0, address
        assert page.locator("main .trouble").count() == 0
        assert _faint_texts(page) == [], address
        if width == 390:
            assert _small_targets(page) == [], address
    visitor.close()


def _faint_texts(page):
    """Texts whose contrast with what is behind them is below 4.5."""
    return page.evaluate("""() => {
        const parse = text => text.match(/[\\d.]+/g).map(Number);
        const light = ([r, g, b]) => [r, g, b].map(c => (c /= 255) <= 0.04045 ? c/12.92 : ((c + 0.055)/1.055)**2.4)
            .reduce((sum, c, k) => sum + c*[0.2126, 0.7152, 0.0722][k], 0);
        const behind = node => {
            for (; node; node = node.parentElement) {
                const colour = parse(getComputedStyle(node).backgroundColor);
                if (colour.length < 4 || colour[3] === 1) return colour;
            }
            return [255, 255, 255];
        };
        return [...document.querySelectorAll("body *")].filter(node => node.checkVisibility() && !node.closest("svg, .skip") &&
            [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim())).filter(node => {
                const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))].sort((a, b) => b - a);
                return (a + 0.05)/(b + 0.05) < 4.5 && !node.matches("span.step");
            }).map(node => node.outerHTML);
    }""")


def _small_targets(page):
    """What is to be touched and is smaller than 24 pixels, but for links within a line of text."""
    return page.evaluate("""() => [...document.querySelectorAll("a, button, input, select, summary")].filter(node =>
        node.checkVisibility() &&
        !node.closest("p, figcaption, svg, .skip, h1, h3, .bars, td, th")).filter(node => {
            const {width, height} = node.getBoundingClientRect();
            return width < 24 || height < 24;
        }).map(node => node.outerHTML)""")


def test_names_from_elsewhere_are_shown_and_never_run(visit):
    visit.visit("")
    assert visit.texts(".names li") == example.HOSTILE
    page = visit.visit("#conv3/4")
    assert any("val/<b>" in text for text in visit.texts(".beside .faint"))
    assert page.locator("main script, main b, main i, main [onerror]").count() == 0
    for k in range(len(example.HOSTILE)):
        visit.visit(f"#fc/{min(k, 10)}")


def test_neither_a_script_within_the_page_nor_another_place_is_let_in(browser, root):
    visitor = Visitor(browser, (root/"index.html").as_uri())
    page = visitor.visit("")
    page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.ran = true";
        document.body.append(script);
        document.body.insertAdjacentHTML("beforeend", "<img alt='' src='data:,' onerror='window.ran = true'>");
        return fetch("http://127.0.0.1:9/").catch(() => null);
    }""")
    assert page.evaluate("window.ran === undefined")
    visitor.close(forgiven=["Content Security Policy"])


def test_the_first_page_is_ready_within_a_second_and_reads_only_its_own_data(visit):
    times = []
    for _ in range(3):
        visit.page.goto("about:blank")
        visit.asked.clear()
        start = time.perf_counter()
        visit.visit("")
        times.append(time.perf_counter() - start)
    assert min(times) < 1
    assert [url.split("/data/")[1] for url in visit.asked if "/data/" in url] == ["network.js"]
    assert {url.split("/sheets/")[1] for url in visit.asked if "/sheets/" in url} <= {"cover.webp"}


def test_sheets_are_loaded_when_their_tiles_come_near(visit):
    page = visit.visit("#conv3/4")
    visit.until("document.querySelector('.pair .tile').style.backgroundImage")
    far = "document.querySelector('.halves section:last-child .tile')"
    assert page.evaluate(f"{far}.getBoundingClientRect().top > innerHeight + 400 && !{far}.style.backgroundImage")
    page.evaluate(f"{far}.scrollIntoView()")
    visit.until(f"{far}.style.backgroundImage.includes('checks')")


def test_a_tile_is_its_cutting_of_the_sheet(visit):
    page = visit.visit("#block%2Fconv2")
    tile = page.locator(".grid .tile").nth(35)
    style = tile.evaluate("node => (s => [s.backgroundPosition, s.backgroundSize, s.width])(getComputedStyle(node))")
    side = float(style[2][:-2])
    assert side % 45 == 0                          # whole multiples of the sheet's 45 pixels
    assert style[0] == f"-{3*side:g}px -{2*side:g}px" and style[1].startswith(f"{16*side:g}px")
    assert "unit 35 of block/conv2" in tile.get_attribute("aria-label")
    visit.until("document.querySelectorAll('.grid .tile')[35].style.backgroundImage.includes('strongest')")


def test_the_layers_are_drawn_to_scale_and_lead_to_their_pages(visit, root):
    page = visit.visit("")
    size = "node => [node.getAttribute('width'), node.getAttribute('height')].map(Number)"
    faces = page.locator(".drawing .face").evaluate_all(f"all => all.map({size})")
    assert faces[1][0]/faces[0][0] == pytest.approx(23/48) and faces[2][1]/faces[0][1] == pytest.approx(11/48)
    (picture, _), (field, _) = page.locator(".drawing .seen").first.evaluate(f"node => [...node.children].map({size})")
    assert field/picture == pytest.approx(5/48)
    page.locator(".drawing a").nth(1).click()
    visit.shown("#block%2Fconv2")
    page.go_back()
    visit.shown("")
    page.locator(".layers .strip a").nth(9).click()
    visit.shown(f"#block%2Fconv2/{data(root, 'network')['cover']['units']['block/conv2'][1]}")


def test_the_switch_shows_means_and_patches(visit):
    page = visit.visit("#conv3")
    for text, kind in (("Mean", "mean"), ("Patch", "patch"), ("Projection", "strongest")):
        page.get_by_role("button", name=text, exact=True).click()
        visit.until(f"document.querySelector('.grid .tile').style.backgroundImage.includes('{kind}')")
        assert page.locator(".choice [aria-pressed=true]").first.inner_text() == text


def numbers(visit):
    return [int(text) for text in visit.texts(".grid .number")]


def test_units_are_sorted(visit, root):
    layer = data(root, "layer-conv3")
    page = visit.visit("#conv3")
    assert numbers(visit) == layer["units"]
    page.select_option("#order", "strength")
    assert numbers(visit) == np.argsort(-np.array(layer["strength"]), kind="stable").tolist()
    page.select_option("#order", "class")
    named = [example.HOSTILE[k] for k, dead in zip(layer["common"], layer["dead"]) if not dead]
    shown = [example.HOSTILE[layer["common"][unit]] for unit in numbers(visit)[:-1]]
    changes = sum(a != b for a, b in zip(shown, shown[1:]))
    assert sorted(shown) == sorted(named) and changes == len(set(named)) - 1              # equal ones stand together
    page.select_option("#order", "likeness")
    page.fill("#like", "7")
    visit.until("document.querySelector('.grid .number').textContent === '7'")
    page.locator(".grid .unit").first.click()
    visit.shown("#conv3/7")
    page.keyboard.press("Escape")
    visit.shown("#conv3")
    assert numbers(visit)[0] == 7                  # as it was left


def cosines(root, name):
    """Of all units of a layer, from what its file of descriptors holds."""
    kept = data(root, f"likeness-{name}")
    described = np.frombuffer(base64.b64decode(kept["described"]), "<i2").reshape(-1, kept["length"])/32767
    return described @ described.T


def test_a_layer_is_sorted_by_the_cosines_with_a_unit_to_its_last(visit, root):
    layer, of = data(root, "layer-block%2Fconv2"), cosines(root, "block%2Fconv2")[7]
    expected = [7] + sorted((p for p in range(39) if p != 7), key=lambda p: -of[p]) + [39]                # 39 is dead
    page = visit.visit("#block%2Fconv2/7")
    page.get_by_text("the whole layer by likeness").click()
    visit.shown("#block%2Fconv2")
    assert numbers(visit) == expected and expected[1:9] == [unit for unit, _ in layer["alike"][7]]
    assert visit.texts(".grid .line") == ["this one"] + [f"{of[p]:.2f}".replace("-", "−") for p in expected[1:-1]] + ["dead"]
    page.fill("#like", "8")
    visit.until("document.querySelector('.grid .number').textContent === '8'")
    assert numbers(visit)[1] == max((p for p in range(39) if p != 8), key=lambda p: cosines(root, "block%2Fconv2")[8][p])


@pytest.mark.parametrize("asked, sentence", [("9999", "no unit 9999"), ("", "Give the number"), ("-1", "no unit -1"),
                                             ("19", "Unit 19 never fires")])
def test_likeness_to_a_unit_that_nothing_can_be_like_is_refused_in_a_sentence(visit, asked, sentence):
    page = visit.visit("#conv3")
    page.select_option("#order", "likeness")
    page.fill("#like", asked)
    visit.until("document.querySelector('main .trouble')")
    assert sentence in page.locator("main .trouble").inner_text() and numbers(visit) == []
    page.fill("#like", "3")
    visit.until("document.querySelectorAll('.grid .unit').length === 20")
    assert page.locator(".told").inner_text() == "20 units"


def test_a_unit_of_a_class_that_is_none_of_its_first_ten_stands_behind_those_with_shares(visit, root):
    """In a search of the last layer, where each stands for its class: also where it is most selective for another."""
    layer = data(root, "layer-fc")
    share = {unit: dict(map(tuple, row)).get(unit, -1) for unit, row in enumerate(layer["histogram"])
             if "a" in example.HOSTILE[unit].lower()}
    assert -1 in share.values() and len(set(share.values())) > 2
    page = visit.visit("#fc")
    page.fill("#search", "a")
    assert numbers(visit) == sorted(share, key=lambda unit: (-share[unit], unit))


def test_a_class_is_searched(visit, root):
    layer = data(root, "layer-block%2Fconv2")
    page = visit.visit("#block%2Fconv2")
    page.keyboard.press("/")
    page.keyboard.type("DOG")
    dogs = {2, 7}
    share = {unit: layer["histogram"][unit][0][1] for unit, k in enumerate(layer["common"]) if k in dogs}
    assert len(share) > 2 and numbers(visit) == sorted(share, key=lambda unit: (-share[unit], unit))
    assert page.locator("main > div > .told").inner_text().startswith(f"{len(share)} of 40 units")
    page.fill("#search", "<script>")
    assert len(numbers(visit)) == sum(k in (0, 11) for k in layer["common"])
    page.keyboard.press("Escape")
    assert page.input_value("#search") == "" and len(numbers(visit)) == 40


def test_the_map_places_units_tells_their_names_and_zooms(visit, root):
    layer = data(root, "layer-conv3")
    page = visit.visit("#conv3")
    page.get_by_role("button", name="Map").click()
    assert page.locator(".land a").count() == 19             # the dead one has no place
    assert page.locator("main > div > .told").inner_text().startswith("19 of 20 units") and page.is_disabled("#order")
    for text, kind in (("Patch", "patch"), ("Mean", "mean"), ("Projection", "strongest")):
        page.get_by_role("button", name=text, exact=True).click()
        visit.until(f"document.querySelector('.land .tile').style.backgroundImage.includes('{kind}')")
    xs = page.locator(".land a").evaluate_all("all => all.map(node => node.getBoundingClientRect().left)")
    assert np.argsort(xs).tolist() == np.argsort([x for x, _ in layer["map"][:-1]]).tolist()
    page.locator(".land a").nth(18).hover()        # the last one lies above the others
    assert "Unit 18" in page.locator(".map .told").inner_text()
    page.get_by_role("button", name="Zoom in").click()
    wide = page.locator(".land a").evaluate_all("all => all.map(node => node.getBoundingClientRect().left)")
    assert np.ptp(wide) > 1.3*np.ptp(xs)
    page.locator(".frame").evaluate("node => { node.scrollTop = 0; node.focus() }")
    page.keyboard.press("ArrowDown")               # moves the map, and leads to no other layer
    visit.until("document.querySelector('.frame').scrollTop > 0")
    assert page.url.endswith("#conv3")


def test_keys_walk_through_units_and_layers(visit):
    page = visit.visit("#conv3/4")
    for key, address in (("ArrowRight", "#conv3/5"), ("ArrowLeft", "#conv3/4"), ("ArrowUp", "#fc"), ("ArrowDown", "#conv3"),
                         ("ArrowDown", "#block%2Fconv2"), ("Escape", "#")):
        page.keyboard.press(key)
        visit.shown(address)
    page.go_back()
    visit.shown("#block%2Fconv2")
    assert page.title() == "block/conv2 · small <i>net</i>"
    visit.visit("#conv3/0")
    page.keyboard.press("ArrowLeft")               # there is none before the first
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("ArrowRight")              # belongs to the dialog
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible() and page.url.endswith("#conv3/0")
    page.keyboard.press("/")
    visit.shown("#conv3")
    page.wait_for_selector("#search:focus")
    for address, layer in (("#picture/4", "#fc"), ("#compare/conv3", "#conv3"), ("#pictures", "#fc")):
        visit.visit(address)
        page.keyboard.press("/")
        visit.shown(layer)
        page.wait_for_selector("#search:focus")
    visit.visit("#picture/4")
    page.keyboard.press("ArrowRight")
    visit.shown("#picture/5")


def test_a_search_that_is_not_there_takes_the_focus_from_nothing_later(browser, root, tmp_path):
    root = shutil.copytree(root, tmp_path/"without")
    example.receive(root, "layer-fc", data(root, "layer-fc") | {"common": None, "class": None})
    visitor = Visitor(browser, (root/"index.html").as_uri())
    page = visitor.visit("#picture/4")
    for address in "#fc", "#fc":                   # the second time it is there already
        page.keyboard.press("/")
        visitor.shown(address)
    page.locator("#pages a").nth(3).click()
    visitor.shown("#conv3")
    assert page.evaluate("document.activeElement.tagName") == "H1"
    visitor.close()


def test_the_slider_fades_from_projection_to_patch_and_stays(visit):
    page = visit.visit("#conv3/4")
    opacity = "Number(getComputedStyle(document.querySelector('.pair .projection')).opacity)"
    assert page.evaluate(opacity) == 1
    page.focus("#mix")
    page.keyboard.press("ArrowRight")
    visit.until(f"{opacity} > 0.949 && {opacity} < 0.951")
    page.keyboard.press("End")
    visit.until(f"{opacity} === 0")
    page.keyboard.press("Escape")                  # leaves the slider
    page.keyboard.press("ArrowRight")
    visit.shown("#conv3/5")
    assert page.evaluate(opacity) == 0


def test_a_pair_shows_its_box_in_the_whole_picture(visit, root):
    layer, whole = data(root, "layer-conv3"), data(root, "whole")
    ranks = [rank for rank, (number, box) in enumerate(zip(layer["pictures"][4], layer["boxes"][4]))
             if number % 7 and (min(box) < 0 or max(box) > 48)]                # over the border
    page = visit.visit("#conv3/4")
    page.locator(".pair").nth(ranks[-1]).hover()
    number, told = layer["pictures"][4][ranks[-1]], page.locator(".beside").inner_text()
    assert told.startswith(f"{ranks[-1] + 1}. {layer['values'][4][ranks[-1]]:.3g}") and whole["names"][str(number)] in told
    assert page.locator(".pair").nth(ranks[-1]).get_attribute("aria-pressed") == "true"
    seat, box = page.locator(".whole").bounding_box(), page.locator(".box").bounding_box()
    top, left, bottom, right = np.clip(layer["boxes"][4][ranks[-1]], 0, 48)/48
    got = [(box["y"] - seat["y"])/seat["height"], (box["x"] - seat["x"])/seat["width"],
           box["height"]/seat["height"], box["width"]/seat["width"]]
    assert got == pytest.approx([top, left, bottom - top, right - left], abs=0.005)
    missing = [rank for rank, number in enumerate(layer["pictures"][4]) if not number % 7]
    for rank in missing:
        page.locator(".pair").nth(rank).focus()
        assert "not kept" in page.locator(".beside").inner_text()


def test_the_box_is_drawn_wherever_it_is_not_the_whole_picture(browser, root, tmp_path):
    """Also where fields are wider than the picture, so that patches are whole pictures."""
    root = shutil.copytree(root, tmp_path/"wide")
    layer = data(root, "layer-conv3")
    layer["boxes"][4][:3] = [[-20, 10, 40, 70], [-6, -6, 54, 54], [0, 0, 48, 48]]
    example.receive(root, "layer-conv3", layer | {"whole": True})
    visitor = Visitor(browser, (root/"index.html").as_uri())
    page = visitor.visit("#conv3/4")
    for rank, boxes in ((1, 0), (2, 0), (0, 1)):
        page.locator(".pair").nth(rank).focus()
        assert page.locator(".beside .box").count() == boxes
    seat, box = page.locator(".whole").bounding_box(), page.locator(".box").bounding_box()
    assert [box["height"]/seat["height"], box["width"]/seat["width"]] == pytest.approx([40/48, 38/48], abs=0.01)
    visitor.close()


def test_what_feeds_a_unit_is_shown_with_signs_and_leads_there(visit, root):
    layer = data(root, "layer-conv3")
    page = visit.visit("#conv3/4")
    section = page.locator("section", has=page.locator("h2", has_text="What feeds it"))
    units = section.locator("a.unit")
    for k, (unit, weight) in enumerate(layer["inputs"][4]):
        assert units.nth(k).locator(".number").inner_text() == str(unit)
        assert units.nth(k).locator(".plus" if weight > 0 else ".minus").count() == 1
    most = units.nth(0).locator(".fill").bounding_box()["width"]
    assert most == pytest.approx(units.nth(0).locator(".track").bounding_box()["width"]/2, abs=1)
    units.nth(2).click()
    visit.shown(f"#block%2Fconv2/{layer['inputs'][4][2][0]}")


def test_only_units_with_pages_are_links(browser, root, tmp_path):
    root = shutil.copytree(root, tmp_path/"fewer")
    network, picture = data(root, "network"), data(root, "picture-3")
    for layer, of_picture in zip(network["layers"], picture["layers"]):
        layer["numbers"] = [one for one in range(layer["units"]) if one not in of_picture["units"][:2]]
    network["layers"][0]["numbers"] = []
    network["layers"].pop()                                # so that this layer has no page at all
    example.receive(root, "network", network)
    visitor = Visitor(browser, (root/"index.html").as_uri())
    page = visitor.visit("#picture/3")
    shown, links = page.locator(".layers article"), [len(one["units"]) - 2 for one in picture["layers"]]
    links[0] = links[-1] = 0
    for k, of_picture in enumerate(picture["layers"]):
        assert shown.nth(k).locator(".unit").count() == len(of_picture["units"]) and shown.nth(k).locator("a.unit").count() == links[k]
    assert shown.nth(0).locator("h3 a").count() == 1 and shown.nth(len(links) - 1).locator("h3 a").count() == 0
    assert "no page" in shown.nth(0).locator(".unit").nth(1).get_attribute("title")
    visitor.close()


def test_a_unit_that_never_fires_says_so(visit):
    page = visit.visit("#conv3/19")
    assert "never fires" in page.locator(".lead").inner_text()
    assert page.locator(".pair").count() == 0
    visit.visit("#conv3")
    assert page.locator(".grid .dead").count() == 1


def test_the_square_is_moved_by_pointer_and_by_arrows(visit, root):
    occlusion = data(root, "picture-3")["occlusion"]
    page = visit.visit("#picture/3")
    stage, told = page.locator(".stage").first, page.locator(".occlusion .told")
    stage.scroll_into_view_if_needed()
    area = stage.bounding_box()
    row, column = 7, 3
    at = [(start[k] + occlusion["size"]/2)/48 for start, k in ((occlusion["tops"], row), (occlusion["lefts"], column))]
    page.mouse.move(area["x"] + at[1]*area["width"], area["y"] + at[0]*area["height"])
    said = f"P = {_short(occlusion['p'][row][column])}"
    assert told.inner_text().startswith(said)
    square = page.locator(".square").bounding_box()
    assert (square["y"] - area["y"])/area["height"] == pytest.approx(occlusion["tops"][row]/48, abs=0.005)
    assert square["width"]/area["width"] == pytest.approx(12/48, abs=0.005)
    stage.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    assert told.inner_text().startswith(f"P = {_short(occlusion['p'][row - 1][column + 1])}")
    assert page.url.endswith("#picture/3")
    grid = page.locator(".stage").nth(1)
    area = grid.bounding_box()
    page.mouse.move(area["x"] + area["width"]*2.5/11, area["y"] + area["height"]*9.5/11)
    assert told.inner_text().startswith(f"P = {_short(occlusion['p'][9][2])}")


def _short(x):
    return f"{float(f'{x:.3g}'):g}"


def test_the_heat_map_has_a_colour_for_each_place_and_a_legend(visit, root):
    occlusion = data(root, "picture-3")["occlusion"]
    page = visit.visit("#picture/3")

    def pixels():
        png = page.evaluate("document.querySelector('.stage canvas').toDataURL()").split(",")[1]
        return np.array(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))

    p = np.array(occlusion["p"])
    assert page.evaluate("(canvas => [canvas.height, canvas.width])(document.querySelector('.stage canvas'))") == [11, 11]
    colours = pixels()
    assert visit.texts(".scale span") == ["0", "", "1"]
    assert f"with the square there, {_short(p.min())} at the least" in page.locator(".occlusion figcaption").first.inner_text()
    page.get_by_role("button", name="Activity").click()
    sums, clean = np.array(occlusion["sums"]), occlusion["clean"]["sum"]
    assert sums.max() < clean and visit.texts(".scale span") == ["0", "", _short(clean)]
    assert colours[p == p.max()].tolist() != pixels()[p == p.max()].tolist()
    page.get_by_role("button", name="Class").click()
    classes = np.array(occlusion["class"])
    assert len(visit.texts(".swatches li")) == len(np.unique(classes))
    colours = pixels()
    assert len({tuple(map(tuple, np.unique(colours[classes == k], axis=0).tolist())) for k in np.unique(classes)}) == 2


@pytest.mark.parametrize("low, high, colours", [
    (0.9952, 0.99995, {(0xfd, 0xe7, 0x25)}), (0, 1, {(0xfd, 0xe7, 0x25), (0x44, 0x01, 0x54)})])
def test_a_fall_of_nothing_looks_like_nothing(visit, root, low, high, colours):
    """Over the whole scale from 0 to 1, as in figure 7: as far as eyes can tell."""
    picture, page = data(root, "picture-3"), visit.visit("#picture/3")
    shown = page.evaluate("""([picture, occlusion]) => {
        const pen = atlas.occlusion.show(picture, occlusion).querySelector("canvas").getContext("2d");
        return [...pen.getImageData(0, 0, 2, 1).data];
    }""", [picture, {**picture["occlusion"], "p": [[low, high]]*11}])
    ends = [tuple(shown[k:k + 3]) for k in (0, 4)]
    assert all(min(np.abs(np.subtract(end, one)).max() for one in colours) <= 3 for end in ends)
    assert (np.abs(np.subtract(*ends)).max() > 100) == (len(colours) == 2)


@pytest.mark.parametrize("silent", [False, True])
def test_where_no_map_fires_nothing_is_called_the_strongest(visit, root, silent):
    picture, page = data(root, "picture-3"), visit.visit("#picture/3")
    said = page.evaluate("([picture, occlusion]) => atlas.occlusion.show(picture, occlusion).textContent",
                         [picture, {**picture["occlusion"], "silent": silent}])
    assert ("the strongest here" in said) != silent and ("No map of conv3 fires on this picture" in said) == silent


def test_the_other_network_is_compared_unit_by_unit(visit, root):
    compared = data(root, "compare-conv3")
    page = visit.visit("#compare")
    page.locator(".bars a").nth(2).click()
    visit.shown("#compare/conv3")
    assert visit.texts(".sides small") == ["epoch 9 of runs/small", "epoch 0 of runs/other"]               # two may have one name
    heads, tiles = page.locator(".sides > span"), page.locator(".matches li").first.locator(".two")
    assert [heads.nth(k).bounding_box()["x"] for k in (0, 2)] == pytest.approx([tiles.nth(k).bounding_box()["x"] for k in (0, 1)], abs=1)
    assert "reaches by chance" in page.locator(".lead").inner_text()
    values = [match[1] if match else -1 for match in compared["matches"]]
    assert visit.texts(".matches strong") == [f"{x:.2f}".replace("-", "−") for x in sorted(values, reverse=True)[:-1]] + ["–"]
    best = int(np.argmax(values))
    assert visit.texts(".matches .line")[:3] == [f"unit {best}", "", f"unit {compared['matches'][best][0]}"]
    page.keyboard.press("ArrowUp")
    visit.shown("#compare/fc")


def test_the_first_tab_leads_to_the_content(visit):
    page = visit.visit("#conv3")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main" and page.url.endswith("#conv3")


def test_a_page_gone_back_to_stands_where_it_was_left(visit):
    page = visit.visit("")
    visit.until("document.documentElement.scrollHeight > innerHeight + 300")
    page.evaluate("scrollTo(0, 250)")
    visit.until("scrollY === 250")
    time.sleep(0.1)                                # until the event of the scrolling has been heard
    page.locator("#pages a").nth(2).click()
    visit.shown("#block%2Fconv2")
    assert page.evaluate("scrollY") == 0
    page.go_back()
    visit.shown("")
    visit.until("scrollY === 250")


def test_dark_and_light_are_switched_and_remembered(browser, root):
    visitor = Visitor(browser, (root/"index.html").as_uri(), color_scheme="light")
    page = visitor.visit("")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.click("#theme")
    dark = page.evaluate(paper)
    assert dark != light
    page.reload()
    visitor.shown("")
    assert page.evaluate(paper) == dark
    visitor.close()


def test_what_is_missing_is_said(browser, root, tmp_path):
    root = shutil.copytree(root, tmp_path/"spoiled")
    (root/"data/layer-conv1.js").unlink()
    (root/"data/likeness-block%2Fconv2.js").unlink()
    (root/"data/layer-conv3.js").write_text("atlas.receive(\"layer-conv3\", {\"name\": ")
    visitor = Visitor(browser, (root/"index.html").as_uri())
    for address, sentence in (("#conv1", "data/layer-conv1.js is missing"), ("#conv3/2", "data/layer-conv3.js cannot be read"),
                              ("#nowhere", "no page #nowhere"), ("#fc/999", "fc shows no unit 999"), ("#fc/x", "no unit x"),
                              ("#%E0%A4%A", "no page"),
                              ("#picture/77", "no page of that picture"),
                              ("#picture/", "no page of that picture"), ("#compare/nix", "not compared"),
                              ("#fc/1/2", "no page")):
        page = visitor.visit(address)
        assert sentence in page.locator("main .trouble").inner_text()
    visitor.visit("#block%2Fconv2/3")              # lives without its neighbours
    assert visitor.page.locator(".pair").count() == 9
    visitor.visit("#block%2Fconv2")
    visitor.page.select_option("#order", "likeness")
    visitor.until("document.querySelector('main .trouble')")
    assert "data/likeness-block%2Fconv2.js is missing" in visitor.page.locator("main .trouble").inner_text()
    (root/"data/network.js").unlink()
    visitor.page.goto("about:blank")
    visitor.page.goto(visitor.at)
    assert "data/network.js is missing" in visitor.page.locator("main .trouble").inner_text()
    visitor.close(forgiven=["ERR_FILE_NOT_FOUND", "Unexpected end of input"])


@pytest.mark.parametrize("how", [
    {"classes": ["only <one>"]}, {"classes": []}, {"nulls": True}, {"nulls": True, "classes": []},
    {"pictures": 0, "compare": False},
    {"layers": [("pictures", 3, 1, None, None)]}, {"layers": [("layer", 1, 9, 7, 1)], "nulls": True}], ids=str)
def test_little_is_shown_where_there_is_little(browser, tmp_path, how):
    root = example.write(tmp_path, **{"layers": SMALL, **how})
    network = data(root, "network")
    visitor = Visitor(browser, (root/"index.html").as_uri(), 390)
    opened, addresses = [], ["", "#look", *(f"#picture/{one['number']}" for one in network["pictures"][:1])]
    for layer in network["layers"]:
        address = ("#layer/" if layer["name"] in ("pictures", "layer") else "#") + quote(layer["name"], safe="")
        opened, addresses = [*opened, address], [*addresses, address, f"{address}/0"]
    for address in addresses:
        page = visitor.visit(address)
        assert page.locator("main .trouble").count() == 0 and "undefined" not in page.locator("main").inner_text(), address
        assert "NaN" not in page.locator("main").inner_text() and "null" not in page.locator("main").inner_text(), address
        wide, window = visitor.widths()
        assert wide <= window, address
        assert page.locator("[class=null], [class=undefined], [href=null]").count() == 0
    visitor.visit("")
    links = visitor.page.locator(".layers h3 a").evaluate_all("all => all.map(node => node.getAttribute('href'))")
    assert links == opened
    visitor.close()


def test_five_thousand_classes_are_searched_at_once(browser, tmp_path):
    names = [f"{kind} {k}" for k in range(1250) for kind in ("dog", "cat", "猫", "<b>")]
    root = example.write(tmp_path, classes=names, layers=[("fc", None, 1, None, None)], pictures=1, compare=False)
    visitor = Visitor(browser, (root/"index.html").as_uri())
    page = visitor.visit("")
    assert page.locator(".names li").count() <= 50
    visitor.visit("#fc")
    assert page.locator(".grid .unit").count() == 5000
    page.fill("#search", "dog 124")
    visitor.until("document.querySelectorAll('.grid .unit').length === 11")
    visitor.close()


class Api(SimpleHTTPRequestHandler):
    """The atlas's files and, where `serves`, answers as the server of --serve gives them."""
    serves, asked = True, []

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path == "/api" and self.serves:
            rules = ["deconvnet", "gradient", "guided"]
            return self.answer(200, {"serves": True, "layers": ["conv1", "fc"], "rules": rules, "classes": []})
        return super().do_GET()

    def do_POST(self):
        body, query = self.rfile.read(int(self.headers["Content-Length"])), parse_qs(urlsplit(self.path).query)
        path = urlsplit(self.path).path
        self.asked.append((path, body, query))
        picture = data(self.root, "picture-3")
        if path == "/api/look" and body.startswith(b"no picture"):
            return self.answer(400, {"error": "That is <b>no</b> picture."})
        if path == "/api/look":
            layers = [{**layer, "sheet": DOT} for layer in picture["layers"]]
            return self.answer(200, {**picture, "id": "a b", "name": "", "label": -1, "image": DOT, "occlusion": None,
                                     "notes": ["<b>enlarged</b>"],
                                     "layers": layers})
        if path == "/api/occlusion":
            return self.answer(200, {**picture["occlusion"], "projection": DOT, "notes": ["in `steps`"]})
        return self.answer(200, {"value": 3.25, "box": [0, 0, 5, 5], "image": DOT})

    def answer(self, code, content):
        text = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.fixture
def served(root):
    """Address of a server of the atlas; .handler: its class."""
    handler = type("Here", (Api,), {"root": root, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=root))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_plain_server_shows_the_same_pages_and_says_how_to_give_a_picture(browser, served):
    at, handler = served
    handler.serves = False
    visitor = Visitor(browser, at)
    for address, heading in ADDRESSES.items():
        page = visitor.visit(address)
        assert page.locator("h1").inner_text() == heading
    assert "zfcore atlas --serve" in page.locator("main").inner_text() and page.locator(".zone").count() == 0
    visitor.close(forgiven=["404"])                # of /api


DROP = """([text, kind]) => { const data = new DataTransfer(); data.items.add(new File([text], "one", {type: kind}));
    const event = %s; dispatchEvent(event); }"""
DROPPED = DROP % "new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true})"
PASTED = DROP % "new ClipboardEvent('paste', {clipboardData: data, bubbles: true})"


def test_a_dropped_picture_is_looked_at(browser, served):
    at, handler = served
    visitor = Visitor(browser, at)
    page = visitor.visit("")
    assert page.locator(".zone").is_visible() and page.locator("#pages a", has_text="Your picture").count() == 1
    page.evaluate(DROPPED, ["a picture", "image/png"])
    visitor.shown("#look")
    page.wait_for_selector(".stage")
    page.wait_for_selector(".occlusion code")      # of its note
    assert page.locator("main > .faint").inner_text() == "<b>enlarged</b>"
    assert page.locator(".bars li").count() == 10 and page.locator(".layers article").count() == 4
    page.wait_for_selector(".projected img")
    box, seat = page.locator(".projected .box").bounding_box(), page.locator(".projected .whole").bounding_box()
    assert box["width"]/seat["width"] == pytest.approx(5/48, abs=0.02)
    page.select_option("#layer", "conv1")
    page.get_by_role("button", name="guided").click()
    visitor.until("document.querySelector('.projected').innerText.includes('conv1 by guided: 3.25')")
    asked = {path: (body, query) for path, body, query in handler.asked}
    assert asked["/api/look"][0] == b"a picture" and asked["/api/occlusion"][1]["id"] == ["a b"]
    assert asked["/api/project"][1] == {"id": ["a b"], "layer": ["conv1"], "rule": ["guided"],
                                        "unit": [str(data(handler.root, "picture-3")["layers"][0]["units"][0])]}
    visitor.close()


def test_a_picture_is_chosen_pasted_or_taken_and_a_refusal_is_said(browser, served):
    at, handler = served
    visitor = Visitor(browser, at)
    page = visitor.visit("#look")
    page.set_input_files("#file", {"name": "x.png", "mimeType": "image/png", "buffer": b"no picture at all"})
    page.wait_for_selector("main .trouble")
    assert page.locator("main .trouble").inner_text() == "That is <b>no</b> picture."
    page.set_input_files("#file", {"name": "x.png", "mimeType": "image/png", "buffer": b"chosen"})
    page.wait_for_selector(".stage")
    page.evaluate(PASTED, ["pasted", "image/png"])
    visitor.visit("#conv1")
    visitor.visit("#look")
    page.get_by_role("button", name="The camera").click()
    visitor.until("document.querySelector('video') && document.querySelector('video').videoWidth > 0")
    page.get_by_role("button", name="Take the picture").click()
    visitor.until("!document.querySelector('video') && document.querySelector('.stage')")
    bodies = [body for path, body, _ in handler.asked if path == "/api/look"]
    assert bodies[1:3] == [b"chosen", b"pasted"] and bodies[3].startswith(b"\x89PNG")
    visitor.close(forgiven=["400"])


CAMERA = """() => {
    window.cameras = [];
    const {mediaDevices} = navigator, ask = mediaDevices.getUserMedia.bind(mediaDevices);
    window.allowed = Promise.resolve();
    mediaDevices.getUserMedia = async how => {
        const given = await ask(how);
        await window.allowed;
        window.cameras.push(given);
        return given;
    };
}"""
ON = "window.cameras.flatMap(one => one.getTracks()).filter(track => track.readyState === 'live').length"


@pytest.mark.parametrize("leave", ["chosen", "pasted", "taken", "link", "again"])
def test_the_camera_goes_off_however_its_view_is_left(browser, served, leave):
    visitor = Visitor(browser, served[0])
    page = visitor.visit("#look")
    page.evaluate(CAMERA)
    page.get_by_role("button", name="The camera").click()
    visitor.until("document.querySelector('video') && document.querySelector('video').videoWidth > 0")
    assert page.evaluate(ON) == 1
    if leave == "chosen":
        page.set_input_files("#file", {"name": "x.png", "mimeType": "image/png", "buffer": b"chosen"})
    elif leave == "pasted":
        page.evaluate(PASTED, ["pasted", "image/png"])
    elif leave == "taken":
        page.get_by_role("button", name="Take the picture").click()
    elif leave == "link":
        page.locator("#pages a").nth(1).click()
    else:
        page.get_by_role("button", name="The camera").click()
        visitor.until("window.cameras.length === 2")
    visitor.until(f"{ON} === {int(leave == 'again')}")
    visitor.close()


def test_a_camera_that_is_allowed_after_its_view_was_left_does_not_stay_on(browser, served):
    visitor = Visitor(browser, served[0])
    page = visitor.visit("#look")
    page.evaluate(CAMERA)
    page.evaluate("() => { window.allowed = new Promise(resolve => { window.allow = resolve; }); }")
    page.get_by_role("button", name="The camera").click()
    visitor.page.locator("#pages a").nth(1).click()
    visitor.shown("#conv1")
    page.evaluate("window.allow()")
    visitor.until("window.cameras.length === 1")
    visitor.until(f"{ON} === 0")
    visitor.close()


def test_a_network_that_sees_only_grey_says_so(browser, root, tmp_path):
    root = shutil.copytree(root, tmp_path/"grey")
    for grey, said in ((False, "looks at colour pictures of"), (True, "looks at the grey of colour pictures of")):
        example.receive(root, "network", data(root, "network") | {"grey": grey})
        visitor = Visitor(browser, (root/"index.html").as_uri())
        lead = visitor.visit("").locator(".lead").inner_text()
        assert said in lead and ("made for grey pictures" in lead) == grey
        visitor.close()


def test_where_no_unit_speaks_of_a_class_nothing_offers_to_search_or_sort_by_it(browser, root, tmp_path):
    root = shutil.copytree(root, tmp_path/"few")
    layer = data(root, "layer-conv3")
    example.receive(root, "layer-conv3", layer | {"common": [-1]*20, "selectivity": [None]*20})
    visitor = Visitor(browser, (root/"index.html").as_uri())
    page = visitor.visit("#conv3")
    assert page.locator("#search").count() == 0 and visitor.texts("#order option") == ["number", "strongest activation",
                                                                                        "likeness to a unit"]
    assert "Too few pictures make a unit fire" in page.locator(".lead").inner_text()
    visitor.close()
