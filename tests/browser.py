"""A headless Chromium that opens pages from disk, and remembers what went wrong in them."""

import json
from pathlib import Path

WIDE, PHONE = (1280, 900), (390, 844)


class Browser:
    """A window; `driver` is selenium's, for clicks, keys and scripts."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, file, size=WIDE):
        """Open a page from disk in a window of this size."""
        width, height = size
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        self.complaints(), self.requests()
        self.driver.get(Path(file).resolve().as_uri())

    def complaints(self):
        """What the page has put on the console since it was asked last: errors and warnings."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self):
        """Addresses that were asked for since then, but for the page's own and data inside it."""
        told = [json.loads(entry["message"]) for entry in self.driver.get_log("performance")]
        sent = [
            entry["message"]["params"]
            for entry in told
            if entry["message"]["method"] == "Network.requestWillBeSent"
        ]
        pages = ("data:", "blob:")
        return [
            one["request"]["url"]
            for one in sent
            if one.get("type") != "Document" and not one["request"]["url"].startswith(pages)
        ]

    def overflow(self):
        """By how many pixels the page is wider than the window."""
        return self.run("const e = document.documentElement; return e.scrollWidth - e.clientWidth")

    def dark(self, wanted=True):
        """Prefer dark colours, or light ones."""
        value = "dark" if wanted else "light"
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": value}]},
        )

    def run(self, script, *arguments):
        """What a script in the page returns."""
        return self.driver.execute_script(script, *arguments)

    def shoot(self, file):
        """Write a picture of the whole page, as far as it can be scrolled."""
        size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {
                "width": self.run("return window.innerWidth"),
                "height": min(int(size["height"]) + 1, 16000),
                "deviceScaleFactor": 1,
                "mobile": False,
            },
        )
        self.driver.save_screenshot(str(file))


def start(chromium, chromedriver):
    """Start Chromium with logs of its console and of all that it asks for."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return Browser(webdriver.Chrome(options, Service(chromedriver)))
