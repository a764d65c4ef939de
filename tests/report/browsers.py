"""A headless Chromium, driven over WebDriver without a client library."""

import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

DRIVER = shutil.which("chromedriver")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND"),
)


@contextmanager
def browser(folder, *flags):
    """A function that sends a WebDriver command to a headless Chromium, as `command(method, path, body)`."""
    log = open(folder / "driver.log", "w+", encoding="utf-8")
    process = subprocess.Popen([str(DRIVER), "--port=0"], stdout=log, stderr=log)
    try:
        base = f"http://127.0.0.1:{_port(folder / 'driver.log')}"
        options = {"binary": BROWSER, "args": [*FLAGS, *flags, f"--user-data-dir={folder / 'profile'}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        session = _send("POST", f"{base}/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        try:
            yield lambda method, path, body=None: _send(method, f"{base}/session/{session}/{path}", body)
        finally:
            _send("DELETE", f"{base}/session/{session}")
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def _port(log):
    for _ in range(300):
        found = re.search(r"successfully on port (\d+)", log.read_text(encoding="utf-8"))
        if found:
            return found.group(1)
        time.sleep(0.1)
    raise AssertionError(log.read_text(encoding="utf-8"))


def _send(method, url, body=None):
    data = json.dumps(body or {}).encode() if method == "POST" else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read().decode()) from error
