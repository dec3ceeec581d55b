"""The page in a real headless Chromium."""

from __future__ import annotations

import importlib.util
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from sdevid.config import dump, parse
from sdevid.report.__main__ import main
from sdevid.report.watch import Watch

ROOT = Path(__file__).resolve().parents[2]
MISSING = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed"),
]

MACHINE = {"processor": "x", "cores": 1, "memory_gib": 1, "gpus": [], "system": "Linux"}
RESULTS = {
    "protocol": {
        "clips": 4,
        "split": "val",
        "checkpoint": "step_1",
        "weights": "ema",
        "seed": 0,
        "fps": 8.0,
    },
    "provenance": {
        "command": "sdevid evaluate <script>alert(1)</script>",
        "machine": MACHINE,
        "versions": {"torch": "<img src=x onerror=alert(1)>"},
        "seconds": 1.0,
    },
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    folder.mkdir()
    settings = {"frame_size": 16, "channels": 1, "encoder": {"map_size": 4}}
    (folder / "config.yaml").write_text(dump(parse(settings)))
    lines = [
        {
            "clips": 8 * step,
            "step": step,
            "time": 1e9 + step,
            "loss": 100.0 / step,
            "elbo": -1.0 * step,
        }
        for step in range(1, 200)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "results.json").write_text(json.dumps(RESULTS))
    films = np.random.default_rng(0).integers(0, 255, (4, 8, 16, 16, 1), np.uint8)
    np.savez(folder / "results.npz", generated=films, real=films, fps=np.float64(8.0))
    assert main([str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        f"user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


def errors(browser) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def fetched(browser) -> list[str]:
    sent = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            sent.append(message["params"]["request"]["url"])
    return [url for url in sent if not url.startswith(("data:", "file:"))]


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_renders_at_any_width_without_error_or_network(browser, run, width, scheme):
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get_log("performance")
    browser.get((run / "report.html").as_uri())
    plots = browser.execute_script("return document.querySelectorAll('.plot').length")
    assert plots == browser.execute_script(
        "return document.querySelectorAll('.plot canvas').length"
    )
    assert plots >= 1
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    assert wide <= width
    dark = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(22, 24, 27)") == (scheme == "dark")
    assert errors(browser) == []
    assert fetched(browser) == []


def test_text_of_a_result_runs_nothing(browser, run):
    browser.get((run / "report.html").as_uri())
    assert "<script>alert(1)</script>" in browser.execute_script("return document.body.innerText")
    assert errors(browser) == []


def test_videos_play(browser, run):
    browser.get((run / "report.html").as_uri())
    played = browser.execute_async_script(
        """const done = arguments[arguments.length - 1];
        const films = [...document.querySelectorAll("video")];
        Promise.all(films.map((film) => film.play().then(() => new Promise((later) =>
          film.addEventListener("timeupdate", () => film.currentTime > 0 && later())))))
          .then(() => done(films.length), (error) => done(String(error)));"""
    )
    assert played == 2


def test_tab_reaches_every_control_and_enter_switches_the_axis(browser, run):
    from selenium.webdriver.common.keys import Keys

    browser.get((run / "report.html").as_uri())
    selector = "a[href], button:not([hidden]), video, summary"
    wanted = browser.execute_script(f"return document.querySelectorAll('{selector}').length")
    reached = set()
    for _ in range(4 * wanted):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        active = browser.switch_to.active_element
        if browser.execute_script(f"return arguments[0].matches('{selector}')", active):
            reached.add(active.id)
        if active.tag_name == "button" and active.text == "log axis":
            active.send_keys(Keys.ENTER)
            assert active.get_attribute("aria-pressed") == "true"
    assert len(reached) == wanted


def test_watched_page_reloads_when_the_run_writes(browser, run):
    server = Watch(run.parent, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        browser.get(server.address)
        assert "run" in browser.execute_script(
            "return document.querySelector('tbody a').textContent"
        )
        browser.get(f"{server.address}run/run/")
        browser.execute_script("window.before = true")
        browser.execute_async_script("setTimeout(arguments[0], 3500)")
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"clips": 1600, "step": 200, "loss": 0.5, "elbo": -1.0}\n')
        reloaded = browser.execute_async_script(
            """const done = arguments[0];
            addEventListener("beforeunload", () => done(true));
            setTimeout(() => done(false), 9000);"""
        )
        assert reloaded
        assert errors(browser) == []
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_studio_draws_three_futures_at_a_press(browser, tmp_path):
    """As a visitor does it: nothing touched but the button."""
    import factories
    from safetensors.torch import save_file

    from sdevid.objectives import build_model

    config = parse(factories.settings(sequence_length=8))
    save_file(build_model(config).state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.yaml").write_text(dump(config))
    spec = importlib.util.spec_from_file_location("screenshots", ROOT / "tools/screenshots.py")
    screenshots = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(screenshots)
    with screenshots.studio(tmp_path) as address:
        browser.get_log("performance")
        browser.get(address)
        screenshots.generate(browser)
        assert browser.execute_script("return document.querySelectorAll('video').length") == 1
        assert [url for url in fetched(browser) if not url.startswith((address, "blob:"))] == []


def test_index_of_fifty_runs_is_sorted_by_a_key_press(browser, tmp_path):
    from selenium.webdriver.common.keys import Keys

    for number in range(50):
        folder = tmp_path / f"run-{number:02d}"
        folder.mkdir()
        line = {"clips": (7 * number) % 50, "step": 1, "loss": 1.0}
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    server = Watch(tmp_path, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    errors(browser)  # of a server that a test before this ended
    try:
        browser.get(server.address)
        heads = browser.find_elements("css selector", "th[data-sort]")
        heads[1].send_keys(Keys.ENTER)
        cells = browser.find_elements("css selector", "tbody td:nth-child(2)")
        assert [int(cell.text) for cell in cells] == list(range(50))
        assert errors(browser) == []
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
