"""A real browser without a window, for tests of the admin page.

    with open_browser(1280, 900) as browser:
        browser.get(url)
        ...
        assert browser.complaints() == []

What it fetched, what it said on its console and how long its main thread was busy are kept from
its beginning to its end. It can reach loopback and nothing else: no other name has an address.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

RESULTS = Path(__file__).resolve().parent.parent.parent / "test-results"
DRIVER = "/usr/bin/chromedriver"
PATIENCE_SECONDS = 20.0
MARK = "page of kvorum"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip


# Colours of a text and of what is behind it, each made solid by what is behind that.
TOO_FAINT = """
const parse = color => { const [r, g, b, a = 1] = color.match(/[0-9.]+/g).map(Number); return [r, g, b, a]; };
const over = (top, below) => top.slice(0, 3).map((part, at) => part * top[3] + below[at] * (1 - top[3]));
const light = color => {
  const [r, g, b] = color.map(part => part / 255).map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = element => element ? over(parse(getComputedStyle(element).backgroundColor), behind(element.parentElement)) : [255, 255, 255];
const found = new Set();
for (const element of document.body.querySelectorAll("*")) {
  const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
  if (!own || !element.checkVisibility() || element.matches("script, style, option, :disabled, .hidden")) continue;
  const style = getComputedStyle(element), back = behind(element), color = parse(style.color);
  for (let each = element; each; each = each.parentElement) color[3] *= Number(getComputedStyle(each).opacity);
  const [one, two] = [light(over(color, back)), light(back)].sort((a, b) => b - a);
  const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  const contrast = (one + 0.05) / (two + 0.05);
  if (contrast < (large ? 3 : 4.5)) found.add(`${element.tagName} ${element.className}: ${contrast.toFixed(2)} ${element.textContent.trim().slice(0, 30)}`);
}
return [...found];
"""  # noqa: E501


class Browser:
    """What tests do with a browser."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver
        self._log: list[dict[str, Any]] = []

    def get(self, url: str) -> None:
        self.driver.get(url)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def find_all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.find(selector).text

    def run(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def wait_until(self, condition: Callable[[], object], what: str) -> float:
        """How many seconds it took."""
        begun = time.monotonic()
        while True:
            try:
                if condition():
                    return time.monotonic() - begun
            except StaleElementReferenceException:
                pass  # It was replaced while we looked; look again.
            assert time.monotonic() < begun + PATIENCE_SECONDS, what
            time.sleep(0.05)

    def keep_picture(self, name: str) -> None:
        """The whole page as it looks now, kept in ``test-results`` for people."""
        RESULTS.mkdir(exist_ok=True)
        width = self.run("return window.innerWidth")
        height = self.run("return document.documentElement.scrollHeight")
        sizes = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sizes)
        time.sleep(0.5)  # The page draws its figures anew when its size has changed.
        assert self.driver.save_screenshot(str(RESULTS / f"{name}.png"))
        self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def too_faint(self) -> list[str]:
        """Texts that stand out too little from what is behind them (WCAG 2.2, 1.4.3, AA)."""
        found: list[str] = self.run(TOO_FAINT)
        return found

    # What happened since the beginning.

    def complaints(self) -> list[str]:
        """What stood on the console: errors, warnings, and what the policy forbade."""
        return [str(entry["message"]) for entry in self._entries("browser")]

    def _entries(self, kind: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.driver.get_log(kind)  # type: ignore[no-untyped-call]
        return entries

    def _messages(self) -> list[dict[str, Any]]:
        for entry in self._entries("performance"):
            self._log.append(json.loads(entry["message"])["message"])
        return self._log

    def hosts(self) -> set[str]:
        """Every host that the browser asked for anything."""
        urls = [
            message["params"]["request"]["url"]
            for message in self._messages()
            if message["method"] == "Network.requestWillBeSent"
        ]
        parts = [urlsplit(url) for url in urls]
        # Its own pages, as the one of a new tab, come out of the browser itself.
        return {part.netloc for part in parts if part.scheme not in ("chrome", "data")}

    def longest_task_ms(self) -> float:
        """The processor time of the longest task of this page's main thread.

        Processor time, since on a busy machine a task may stand still for as long as it likes.
        """
        # The browser has pages of its own; the thread that leaves this mark is ours.
        self.run(f"performance.mark('{MARK}')")
        time.sleep(0.5)
        events = [
            message["params"]
            for message in self._messages()
            if message["method"] == "Tracing.dataCollected"
        ]
        (thread,) = {(event["pid"], event["tid"]) for event in events if event["name"] == MARK}
        lengths: list[float] = [
            event.get("tdur", 0) / 1000
            for event in events
            if event["name"].endswith("RunTask") and (event["pid"], event["tid"]) == thread
        ]
        assert len(lengths) > 100, "the tasks of the page were not traced"
        return max(lengths)


@contextmanager
def open_browser(width: int, height: int, *, trace: bool = False) -> Iterator[Browser]:
    """A browser with a profile of its own, both gone afterwards."""
    with TemporaryDirectory(prefix="kvorum-browser-", ignore_cleanup_errors=True) as profile:
        options = ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        if trace:
            categories = "toplevel,blink.user_timing"
            options.add_experimental_option("perfLoggingPrefs", {"traceCategories": categories})
        driver = Chrome(options=options, service=Service(DRIVER))
        try:
            yield Browser(driver)
        finally:
            driver.quit()
