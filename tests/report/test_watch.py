"""The server of pages: on loopback, refreshed, and never a file outside its pages."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request

import pytest

from sdevid.config import dump, parse
from sdevid.errors import UserError
from sdevid.report.watch import Watch


def write_run(folder, steps):
    folder.mkdir(parents=True, exist_ok=True)
    config = parse({"frame_size": 16, "channels": 1, "encoder": {"map_size": 4}})
    (folder / "config.yaml").write_text(dump(config))
    lines = [{"clips": 8 * step, "step": step, "loss": 1.0} for step in steps]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def runs(tmp_path):
    write_run(tmp_path / "runs" / "a", [1, 2])
    write_run(tmp_path / "runs" / "deep" / "b <i>", [1])
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path / "runs"


@pytest.fixture
def serve():
    started = []

    def start(folder, host="127.0.0.1"):
        server = Watch(folder, host, 0)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        started.append((server, thread))
        return server

    yield start
    for server, thread in started:
        server.shutdown()
        thread.join()
        server.server_close()


def get(server, path, query=""):
    address = f"http://127.0.0.1:{server.server_address[1]}{path}{query}"
    try:
        with urllib.request.urlopen(address, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_index_lists_every_run_and_each_has_its_page(runs, serve):
    server = serve(runs)
    status, text = get(server, "/")
    assert status == 200
    assert 'href="/run/a/"' in text
    assert "deep/b &lt;i&gt;" in text
    assert get(server, "/run/deep/b%20%3Ci%3E/")[0] == 200
    assert "The bound over training" in get(server, "/run/a/")[1]


def test_run_without_metrics_is_listed_and_names_the_command(runs, serve):
    (runs / "new").mkdir()
    (runs / "new" / "config.yaml").write_text((runs / "a" / "config.yaml").read_text())
    server = serve(runs)
    index = get(server, "/")[1]
    assert 'href="/run/new/"' in index
    assert "not measured" in index
    status, text = get(server, "/run/new/")
    assert status == 200
    assert "python -m sdevid train --config" in text


def test_run_that_a_stranger_damaged_is_named_on_its_page_alone(runs, serve):
    (runs / "a" / "results.json").write_text('{"protocol": "<script>alert(1)</script>"')
    server = serve(runs)
    for path in ("/", "/run/a/"):
        status, text = get(server, path)
        assert status == 200
        assert "results.json is damaged" in text
        assert "<script>alert" not in text
    assert "The bound over training" in get(server, "/run/deep/b%20%3Ci%3E/")[1]


def test_stamp_changes_when_training_writes(runs, serve):
    server = serve(runs / "a")
    before = get(server, "/run/a/stamp")[1]
    assert before == get(server, "/run/a/stamp")[1]
    write_run(runs / "a", [1, 2, 3])
    assert get(server, "/run/a/stamp")[1] != before


@pytest.mark.parametrize(
    "path",
    ["/run/../secret.txt", "/run/a/../../secret.txt", "/run/%2e%2e/secret.txt", "/etc/passwd"],
)
def test_no_file_but_a_page_is_served(path, runs, serve):
    status, text = get(serve(runs), path)
    assert status == 404
    assert "secret" not in text


def test_any_address_but_loopback_needs_the_token(runs, serve):
    server = serve(runs, "0.0.0.0")
    assert get(server, "/")[0] == 403
    assert get(server, "/", "?token=wrong")[0] == 403
    status, text = get(server, "/", f"?token={server.token}")
    assert status == 200
    assert f"/run/a/?token={server.token}" in text


def test_port_in_use_and_folder_without_runs_are_named(runs, serve, tmp_path):
    taken = serve(runs).server_address[1]
    with pytest.raises(UserError, match=f"port {taken} "):
        Watch(runs, "127.0.0.1", taken)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no run"):
        Watch(tmp_path / "empty", "127.0.0.1", 0)
