"""The report in a real browser: Chromium without a window, spoken to over a pipe in its DevTools protocol."""

import json
import os
import select
import shutil
import subprocess

import example_results as example
import numpy as np
import pytest

import twograd.numpy as tnp
from twograd import tape
from twograd.compare import report
from twograd.pictures import style

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
]

PAGES = ("summary", "c-op_chain", "c-mlp_digits", "c-broken", "method", "machine", "all")

SHOWN = "[...document.querySelectorAll('main > section')].filter(s => s.offsetHeight > 0).map(s => s.id)"


class Browser:
    """One tab. ``troubles`` are exceptions, messages on the console and violations of the page's own policy."""

    def __init__(self, folder):
        (to_read, self.to_browser), (self.from_browser, to_write) = os.pipe(), os.pipe()
        options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run")
        self.process = subprocess.Popen(
            [
                "bash",
                "-c",
                f'exec "$0" "$@" 3<&{to_read} 4>&{to_write}',
                CHROMIUM,
                *options,
                f"--user-data-dir={folder}",
            ],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self.number, self.rest, self.session, self.events = 0, b"", None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def _next(self):
        while b"\0" not in self.rest:
            assert select.select([self.from_browser], [], [], 60)[0], "the browser says nothing"
            more = os.read(self.from_browser, 1 << 20)
            assert more, "the browser is gone"
            self.rest += more
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def open(self, path, page="", width=1366, height=768):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        for url in ("about:blank", f"{path.as_uri()}#{page}"):  # a new anchor alone would not load the page again
            self.events.clear()
            self.call("Page.navigate", url=url)
            while not any(event["method"] == "Page.loadEventFired" for event in self.events):
                self.events.append(self._next())

    def value(self, expression):
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, (expression, found)
        return found["result"].get("value")

    def key(self, key):
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    @property
    def troubles(self):
        wanted = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [event for event in self.events if event["method"] in wanted]

    def close(self):
        self.process.terminate()
        self.process.wait()
        os.close(self.to_browser)
        os.close(self.from_browser)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    return report.write_report(example.results(), out)


def go(browser, page):
    browser.value(f"location.hash = {page!r}")


@pytest.mark.parametrize("scripts", [True, False], ids=["with JavaScript", "without"])
def test_the_address_decides_which_page_is_shown(browser, path, scripts):
    browser.call("Emulation.setScriptExecutionDisabled", value=not scripts)
    try:
        browser.open(path)
        assert browser.value(SHOWN) == ["summary"]
        links = browser.value("[...document.querySelectorAll('a')].map(a => a.getAttribute('href').slice(1))")
        assert set(PAGES) <= set(links)
        for anchor in dict.fromkeys(links):
            go(browser, anchor)
            shown = browser.value(SHOWN)
            page = browser.value(f"document.getElementById({anchor!r}).closest('section')?.id")
            assert shown == (
                [page] if page else ["summary", *[p for p in PAGES if p.startswith("c-")], "method", "machine"]
            )
            assert browser.value(f"document.getElementById({anchor!r}).offsetHeight") > 0
        assert browser.troubles == []
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.parametrize("width", [400, 1366, 1920])
def test_nothing_is_wider_than_the_screen(browser, path, width):
    browser.open(path, width=width)
    for page in PAGES:
        go(browser, page)
        assert browser.value("document.documentElement.scrollWidth") <= width, page
    go(browser, "c-op_chain")
    for line in range(3):
        browser.value(f"document.querySelectorAll('.source[tabindex]')[{line}].focus()")
        assert browser.value("document.documentElement.scrollWidth") <= width, line


@pytest.mark.parametrize("width", [400, 1366])
def test_the_line_in_focus_shows_what_became_of_it(browser, path, width):
    browser.open(path, "c-op_chain", width)
    visible = "[...document.querySelectorAll('.made')].filter(m => m.offsetHeight > 0).map(m => m.ariaLabel)"
    assert browser.value(visible) == (["Line 5"] if width > 1000 else [])
    browser.value("document.querySelector('.source[tabindex]').focus()")
    assert browser.value(visible) == ["Line 5"]
    browser.key("ArrowDown")
    assert browser.value(visible) == ["Line 6"]
    browser.key("ArrowUp")
    assert browser.value(visible) == ["Line 5"]
    if width > 1000:
        browser.value("document.activeElement.blur()")
        x, y = browser.value(
            "(r => [r.x + 20, r.y + 5])([...document.querySelectorAll('.source')][2].getBoundingClientRect())"
        )
        browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        assert browser.value(visible) == ["Line 6"]


def test_what_belongs_together_is_marked_for_pointer_and_focus(browser, path):
    browser.open(path, "c-op_chain")
    marked = "[...document.querySelectorAll('.made .same')].map(e => e.dataset.of)"
    assert browser.value(marked) == []
    browser.value("document.querySelector('.source[tabindex]').focus()")
    browser.value("document.querySelectorAll('.made [data-of=\"1\"] a')[1].focus()")
    assert browser.value(marked) == ["1"] * 14
    assert browser.value("document.querySelectorAll('.made .same')[0].checkVisibility()")
    x, y = browser.value(
        "(r => [r.x + 5, r.y + 5])(document.querySelector('.made [data-of=\"0\"]').getBoundingClientRect())"
    )
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    assert browser.value(marked) == ["0", "0"]
    browser.value("document.activeElement.blur()")
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    assert browser.value(marked) == []
    assert browser.troubles == []


def test_bars_say_in_text_what_they_show(browser, path):
    browser.open(path, "c-op_chain")
    bars = browser.value(
        "[...document.querySelectorAll('.line .bars')].map(bar => "
        "[bar.parentElement.querySelector('.time').innerText, ...[...bar.children].map(part => part.offsetWidth)])"
    )
    assert [text for text, *_ in bars] == ["120 µs", "20.0 µs", ""]
    (whole, own), (small, none), nothing = ([own + back, own] for _, own, back in bars)
    assert own / whole == pytest.approx(1 / 4, abs=0.02)
    assert small / whole == pytest.approx(1 / 6, abs=0.02)
    assert (none, *nothing) == (small, 0, 0)


# --- the walk ---------------------------------------------------------------------------------------------------------

STEPS = """[...document.querySelectorAll('.step')].filter(s => s.offsetHeight && s.checkVisibility())
  .map(s => s.id.split('.step-')[1])"""

HERE = "[...document.querySelectorAll('.graph .here')].map(box => box.dataset.key)"


@pytest.mark.parametrize("width", [400, 1366])
def test_the_walk_is_stepped_through_by_buttons_and_keys(browser, path, width):
    browser.open(path, "c-op_chain", width)
    assert browser.value(STEPS) == []
    browser.value("document.querySelector('.folded summary').click()")
    assert browser.value(STEPS) == ["1"]
    assert browser.value(HERE) == ["op2", "node2"]
    browser.value("document.querySelector('[data-to=next]').focus()")
    browser.value("document.activeElement.click()")
    assert browser.value(STEPS) == ["2"]
    assert browser.value("[...document.querySelectorAll('.equations .on .number')].map(e => Number(e.innerText))") == [
        1, *range(3, 15),
    ]  # fmt: skip
    for key, step in (("ArrowRight", "3"), ("ArrowRight", "3"), ("Home", "1"), ("End", "3"), ("ArrowLeft", "2")):
        browser.key(key)
        assert browser.value(STEPS) == [step], key
    assert browser.value("document.activeElement.dataset.to") == "next"  # at either end it keeps the focus
    assert browser.value("location.hash") == "#c-op_chain.step-2"
    assert browser.value("document.querySelector('.walk output').innerText") == "step 2 of 5"
    browser.value(
        "document.querySelector('[data-key=\"leaf0.grad\"]').dispatchEvent(new Event('click', {bubbles: true}))"
    )
    assert browser.value(STEPS) == ["3"]
    browser.value("document.activeElement.blur()")
    browser.key("Home")  # which scrolls, and is not for the walk
    assert browser.value(STEPS) == ["3"]
    assert browser.value(SHOWN) == ["c-op_chain"]
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.troubles == []


def test_a_node_leads_to_its_step_and_back_and_forth(browser, path):
    browser.open(path, "c-op_chain")
    browser.value("document.querySelector('.source[tabindex]').focus()")
    browser.value("document.querySelector('.made a[href$=step-2]').click()")
    assert browser.value(STEPS) == ["2"]
    assert browser.value("document.activeElement.innerText").startswith("TanhBackward0 #1")
    assert browser.value("(y => 0 <= y && y < innerHeight)(document.activeElement.getBoundingClientRect().y)")
    browser.value("document.querySelector('.step.shown .rule a').click()")
    assert browser.value(STEPS) == ["1"]
    browser.open(path, "c-op_chain.step-3")
    assert (browser.value(SHOWN), browser.value(STEPS)) == (["c-op_chain"], ["3"])
    go(browser, "method")
    assert browser.value(SHOWN) == ["method"]
    assert browser.troubles == []


def test_the_page_of_a_walk_is_stepped_through_wherever_the_focus_is(browser, tmp_path):
    def f(x, w):
        return tnp.sum(tnp.tanh(x @ w) ** 2)

    page = tape.step(f, np.ones((2, 3), np.float32), np.ones((3, 2), np.float32)).save(tmp_path / "walk.html")
    browser.open(page)
    shown = "[...document.querySelectorAll('.step')].filter(s => s.offsetHeight).map(s => s.id)"
    for key, step in ((None, 1), ("ArrowRight", 2), ("End", 6), ("ArrowLeft", 5), ("Home", 1)):
        if key:
            browser.key(key)
        assert browser.value(shown) == [f"step-{step}"], key
    browser.value("document.querySelector('.equations a[href=\"#step-3\"]').click()")
    assert browser.value(shown) == ["step-3"]
    browser.open(page, "step-4", 400)
    assert browser.value(shown) == ["step-4"]
    assert browser.value("document.documentElement.scrollWidth") <= 400
    assert browser.troubles == []


def test_without_scripts_all_steps_stand_in_their_fold(browser, path):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(path, "c-op_chain")
        assert browser.value(STEPS) == []
        browser.value("document.querySelector('.folded').open = true")
        assert browser.value(STEPS) == ["1", "2", "3"]
        assert not browser.value("document.querySelector('.walk .bar').checkVisibility()")
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


TEXTS = """[...new Set([...document.querySelectorAll('body *')].filter(e => e.checkVisibility() &&
  [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && !e.closest('svg, script')).map(e => {
  let under = e;
  while (under && getComputedStyle(under).backgroundColor === 'rgba(0, 0, 0, 0)') under = under.parentElement;
  return getComputedStyle(e).color + '|' + getComputedStyle(under ?? document.body).backgroundColor;
}))]"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_enough_contrast(browser, path, scheme):
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open(path, "all")
    browser.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    found = browser.value(TEXTS)
    assert len(found) > 5
    for pair in found:
        text, ground = (hexadecimal(color) for color in pair.split("|"))
        assert style.contrast(text, ground) >= 4.5, pair


def hexadecimal(color):
    channels = color.removeprefix("rgb(").removesuffix(")").split(", ")
    return "#" + "".join(f"{int(channel):02x}" for channel in channels)


def test_on_paper_every_page_is_there(browser, path):
    browser.open(path, "method")
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert len(browser.value(SHOWN)) == len(PAGES) - 1
        assert browser.value("[...document.querySelectorAll('.made')].every(m => m.offsetHeight > 0)")
        assert browser.value(STEPS) == []
        browser.value("document.querySelector('.folded').open = true")  # whoever has opened it wants it on paper
        assert browser.value(STEPS) == ["1", "2", "3"]
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")
