"""The page at `/`, in a real browser: a query typed into it, answers with their bars, in light, dark and on a phone."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import socket
import struct
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from xt.serve.gateway.server import Gateway
from xt.serve.triton.addresses import free_ports

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium, chromium-browser or google-chrome")
WAIT_SECONDS = 30


class Tab:
    """A tab of a headless Chromium, by the DevTools protocol over a websocket (RFC 6455)."""

    def __init__(self, url: str) -> None:
        host, _, path = url.removeprefix("ws://").partition("/")
        name, _, port = host.partition(":")
        self._socket = socket.create_connection((name, int(port)), timeout=WAIT_SECONDS)
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        lines = [f"GET /{path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
        self._socket.sendall("\r\n".join(lines).encode())
        self._stream = self._socket.makefile("rb")
        assert b"101" in self._stream.readline()
        while self._stream.readline().strip():
            pass
        self._number = 0
        self.events: list[dict] = []

    def call(self, method: str, **parameters):
        self._number += 1
        data = json.dumps({"id": self._number, "method": method, "params": parameters}).encode()
        size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack("!H", len(data))
        mask = secrets.token_bytes(4)
        masked = bytes(b ^ mask[i % 4] for i, b in enumerate(data))
        self._socket.sendall(b"\x81" + size + mask + masked)
        while True:
            message = json.loads(self._message())
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def _message(self) -> bytes:
        whole = b""
        while True:
            first, second = self._stream.read(2)
            size = second & 0x7F
            if size > 125:
                size = int.from_bytes(self._stream.read(2 if size == 126 else 8), "big")
            whole += self._stream.read(size)
            if first & 0x80:
                return whole

    def value(self, expression: str):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, expression: str):
        end = time.monotonic() + WAIT_SECONDS
        while not (found := self.value(expression)):
            assert time.monotonic() < end, (
                f"{expression} stayed {found!r}; the page: {self.value('document.body.innerText')}"
            )
            time.sleep(0.05)
        return found

    def open(self, url: str, width=1200, height=900, scheme="light", scale=1):
        self.call("Page.enable")
        self.call("Log.enable")
        self.call("Runtime.enable")
        self.call("Network.enable")
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=url)
        self.wait(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(url)})")

    def type(self, selector: str, text: str):
        """Keys go to the tab in front: type again what a tab not yet in front did not take."""
        found = f"document.querySelector({json.dumps(selector)})"
        end = time.monotonic() + WAIT_SECONDS
        while True:
            self.call("Page.bringToFront")
            self.value(f"{found}.focus()")
            self.call("Input.insertText", text=text)
            if self.value(f"{found}.value").endswith(text):
                return
            assert time.monotonic() < end, f"{selector} takes no text"
            time.sleep(0.1)

    def press(self, key: str):
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode={"Enter": 13, "Tab": 9, "ArrowRight": 39}[key],
                **({"text": "\r"} if key == "Enter" and kind == "keyDown" else {}),
            )

    def shot(self, file: Path):
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)["data"]
        file.write_bytes(base64.b64decode(data))

    def close(self):
        self._socket.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chromium")
    arguments = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
    ]
    arguments += [
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        f"--user-data-dir={folder}",
    ]
    arguments += ["--remote-debugging-port=0", "about:blank"]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        told = folder / "DevToolsActivePort"
        end = time.monotonic() + WAIT_SECONDS
        while not (told.exists() and len(told.read_text().splitlines()) == 2):
            assert process.poll() is None, "Chromium ended"
            assert time.monotonic() < end, "Chromium does not listen"
            time.sleep(0.05)
        yield int(told.read_text().splitlines()[0])
    finally:
        os.killpg(process.pid, 9)
        process.wait()


@pytest.fixture
def tab(browser):
    request = urllib.request.Request(f"http://127.0.0.1:{browser}/json/new?about:blank", method="PUT")
    with urllib.request.urlopen(request) as answer:
        made = json.load(answer)
    opened = Tab(made["webSocketDebuggerUrl"])
    yield opened
    opened.call("Page.close")
    opened.close()


@pytest.fixture(scope="module")
def gateway(server):
    (port,) = free_ports(1)
    with Gateway(server.url, port=port, metrics_url=f"http://127.0.0.1:{server.ports.metrics}/metrics") as running:
        yield running


def complaints(tab: Tab) -> list[str]:
    """What the browser logged as an error or warning: a blocked script, a missing file, an exception."""
    found = [e["params"] for e in tab.events if e["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]
    return [json.dumps(f) for f in found if f.get("entry", {"level": "error"})["level"] in ("error", "warning")]


def test_a_query_typed_into_the_page_is_answered_with_bars(tab, gateway):
    tab.open(gateway.url)
    tab.wait("document.querySelector('#served').textContent.includes('encoder')")
    assert tab.value("document.querySelector('#candidates-box').hidden") is False  # no retriever: texts are ranked
    tab.type("#candidates", "good morning world\nthe cat sleeps today\n\nwe eat bread and cheese")
    tab.type("#query", "the cat sleeps today")
    tab.press("Enter")
    tab.wait("document.querySelectorAll('#results li').length")
    texts = tab.value("[...document.querySelectorAll('#results .text')].map(e => e.textContent)")
    assert sorted(texts) == ["good morning world", "the cat sleeps today", "we eat bread and cheese"]
    assert texts[0] == "the cat sleeps today"
    shares = [float(s) for s in tab.value("[...document.querySelectorAll('#results .share')].map(e => e.textContent)")]
    assert shares == sorted(shares, reverse=True)
    tab.wait(
        "[...document.querySelectorAll('.fill')].every(e => e.getAnimations().length === 0 && e.style.transform !== 'scaleX(0)')"
    )
    bar, track = tab.value(
        "[...document.querySelectorAll('#results li:nth-child(2) :is(.fill, .track)')].map(e => e.getBoundingClientRect().width).sort((a, b) => a - b)"
    )
    assert bar / track == pytest.approx(max(shares[1], 0), abs=0.01)  # the bar is as long as the number says
    assert "cosines only" in tab.value(
        "document.querySelector('#note').textContent"
    )  # and says that it is no probability
    assert "3 answers in" in tab.value("document.querySelector('#status').textContent")
    assert complaints(tab) == []


def test_the_page_asks_no_other_host(tab, gateway):
    tab.open(gateway.url)
    tab.wait("document.querySelector('#numbers').children.length")
    asked = [e["params"]["request"]["url"] for e in tab.events if e["method"] == "Network.requestWillBeSent"]
    assert len(asked) >= 5
    assert {u.split("/")[2] for u in asked if not u.startswith("data:")} == {gateway.url.split("/")[2]}


def test_the_live_numbers_are_those_of_the_server(tab, gateway):
    tab.open(gateway.url)
    tab.wait("document.querySelector('#numbers').textContent.includes('refused')")
    body = json.dumps({"model": "encoder", "input": ["good morning world"] * 200}).encode()
    headers = {"Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(f"{gateway.url}/v1/embeddings", body, headers)).close()
    tab.wait("parseFloat(document.querySelector('#numbers dd').textContent) > 1")
    tab.wait("(document.querySelector('#spark-line').getAttribute('d') || '').includes('L')")


def test_a_page_with_a_token_asks_for_it(tab, server):
    (port,) = free_ports(1)
    with Gateway(server.url, port=port, token="open-sesame") as gateway:
        tab.open(gateway.url)
        tab.wait("!document.querySelector('#token-box').hidden")
        tab.type("#token", "wrong")
        tab.press("Enter")
        tab.wait("document.querySelector('#served').textContent.includes('token')")
        tab.value("document.querySelector('#token').value = ''")
        tab.type("#token", "open-sesame")
        tab.press("Enter")
        tab.wait("document.querySelector('#served').textContent.includes('encoder')")
        assert tab.value("document.querySelector('#token-box').hidden") is True
        assert "Authorization: Bearer $XT_TOKEN" in tab.value("document.querySelector('#snippet').textContent")
        assert "open-sesame" not in tab.value("document.body.innerText")


def test_the_page_can_be_used_by_keyboard_and_is_labelled(tab, gateway):
    tab.open(gateway.url)
    tab.wait("document.querySelector('#served').textContent.includes('encoder')")
    unlabelled = "[...document.querySelectorAll('textarea, input')].filter(e => !e.labels.length).length"
    assert tab.value(unlabelled) == 0
    assert tab.value("document.querySelector('#status').getAttribute('aria-live')") == "polite"
    assert tab.value("document.querySelector('#query').dir") == "auto"
    focused = []
    for _ in range(6):
        tab.press("Tab")
        focused.append(
            tab.value("document.activeElement.id || document.activeElement.className || document.activeElement.tagName")
        )
    assert focused == ["skip", "query", "go", "candidates", "tab-curl", "PRE"]
    tab.value("document.querySelector('#tab-curl').focus()")
    tab.press("ArrowRight")
    assert tab.value("document.activeElement.id") == "tab-openai"
    assert "from openai import OpenAI" in tab.value("document.querySelector('#snippet').textContent")


CONTRAST = """(() => {
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = (c) => { const [r, g, b] = parse(c).map((v) => v / 255).map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const ground = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (parse(c)[3] !== 0) return c; } return 'rgb(255,255,255)'; };
  return Math.min(...[...document.querySelectorAll('p, h1, h2, label, button, dt, dd, code, .text, .share, .meta')].filter((e) => e.offsetParent && e.textContent.trim())
    .map((e) => { const [a, b] = [light(getComputedStyle(e).color), light(ground(e))]; return (Math.max(a, b) + .05) / (Math.min(a, b) + .05); }));
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1200, 900), (390, 844)], ids=["desk", "phone"])
def test_it_fits_and_can_be_read(tab, gateway, scheme, width, height, tmp_path):
    """No sideways scrolling, contrast of text at least 4.5 (WCAG AA), what is pressed at least 24 px high (2.5.8)."""
    tab.open(gateway.url, width, height, scheme)
    tab.wait("document.querySelector('#numbers').textContent.includes('refused')")
    tab.type("#candidates", "good morning world\n" + "Donaudampfschifffahrtsgesellschaft" * 4)
    tab.type("#query", "صباح الخير يا عالم")
    tab.press("Enter")
    tab.wait("document.querySelectorAll('#results li').length === 2")
    assert tab.value("document.documentElement.scrollWidth") <= width
    assert tab.value("getComputedStyle(document.querySelector('#query')).direction") == "rtl"
    assert tab.value(CONTRAST) >= 4.5
    heights = tab.value(
        "[...document.querySelectorAll('button')].filter(e => e.offsetParent).map(e => e.getBoundingClientRect().height)"
    )
    assert min(heights) >= 24
    paper = tab.value("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) > 600) == (scheme == "light")
    tab.shot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000
