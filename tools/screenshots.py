"""Pictures of page, watch and studio for the documentation, taken by a headless Chromium.

python tools/screenshots.py runs/demo    writes docs/page.webp, docs/watch.webp, docs/studio.webp
"""

from __future__ import annotations

import argparse
import io
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from sdevid.report.page import page
from sdevid.report.record import read
from sdevid.report.watch import Watch

WIDTH = 1280
HEIGHTS = {"page": 1500, "watch": 420, "studio": 900}
SECONDS = 180  # for the studio to answer and to draw, on a busy machine too


def main() -> int:
    """Take the three pictures of one run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", type=Path, help="a run that was trained and evaluated")
    parser.add_argument("--output_dir", type=Path, default=Path("docs"), help="for the pictures")
    options = parser.parse_args()
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if missing:
        print(
            f"screenshots: {' and '.join(missing)} not found; on Debian: apt-get install chromium "
            "chromium-driver",
            file=sys.stderr,
        )
        return 2
    with browser() as driver, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        path.write_text(page(read(options.run_dir)), encoding="utf-8")
        size(driver, "page")
        driver.get(path.as_uri())
        take(driver, options.output_dir / "page.webp")
        size(driver, "watch")
        with watched(options.run_dir.parent) as address:
            driver.get(address)
            take(driver, options.output_dir / "watch.webp")
        size(driver, "studio")
        with studio(options.run_dir) as address:
            driver.get(address)
            generate(driver)
            take(driver, options.output_dir / "studio.webp")
    return 0


@contextmanager
def browser() -> Iterator[Any]:
    """Start a headless Chromium of the system's packages."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    with tempfile.TemporaryDirectory() as profile:
        for flag in ("headless", "no-sandbox", "hide-scrollbars", f"user-data-dir={profile}"):
            options.add_argument(f"--{flag}")
        driver = webdriver.Chrome(
            options=options, service=webdriver.ChromeService(shutil.which("chromedriver"))
        )
        try:
            yield driver
        finally:
            driver.quit()


def size(driver: Any, name: str) -> None:
    """Give the window the size of this picture."""
    shape = {"width": WIDTH, "height": HEIGHTS[name], "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)


def take(driver: Any, path: Path) -> None:
    """Write what the window shows as WebP, once its films are laid out."""
    time.sleep(1.5)
    with Image.open(io.BytesIO(driver.get_screenshot_as_png())) as shot:
        shot.convert("RGB").save(path, "WEBP", quality=82, method=6)
    print(f"{path} ({path.stat().st_size / 1024:.0f} KiB)")


@contextmanager
def watched(folder: Path) -> Iterator[str]:
    """Serve the runs of a folder as `sdevid watch` does; yield the address."""
    server = Watch(folder, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.address
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def studio(run_dir: Path) -> Iterator[str]:
    """Serve a studio that tries this run; yield the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "sdevid", "studio", str(run_dir), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as served:
        try:
            _wait_for(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            served.send_signal(signal.SIGINT)
            try:
                served.wait(timeout=20)
            except subprocess.TimeoutExpired:  # one started in the background does not hear it
                served.terminate()


def _wait_for(port: int) -> None:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise TimeoutError(f"the studio does not answer on port {port}")


def generate(driver: Any) -> None:
    """Press the button and wait until all three futures are there to be downloaded."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    button = "//button[contains(., 'Generate')]"
    wait = WebDriverWait(driver, SECONDS)
    wait.until(lambda _: driver.find_elements(By.XPATH, button))[0].click()
    wait.until(lambda _: "future_03" in driver.page_source)


if __name__ == "__main__":
    sys.exit(main())
