"""The studio: its futures, its page through Gradio's own client, and what it refuses."""

from __future__ import annotations

import builtins
import os
import signal
import socket
import subprocess
import sys

import factories
import numpy as np
import pytest
import torch
from gradio_client import Client
from safetensors.torch import save_file

from sdevid.config import dump, parse
from sdevid.errors import UserError
from sdevid.objectives import build_model
from sdevid.report import studio
from sdevid.report.studio import Request, futures
from sdevid.sample import write
from sdevid.sample.video_sde import VideoSDE

SMALL = factories.settings(
    sequence_length=8, sde={"latent_size": 3, "content_size": 4, "hidden": 16, "steps_per_frame": 1}
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    config = parse(SMALL)
    torch.manual_seed(0)
    save_file(build_model(config).state_dict(), path / "model.safetensors")
    (path / "config.yaml").write_text(dump(config))
    return path


@pytest.fixture(scope="module")
def model(folder):
    return VideoSDE.from_pretrained(folder)


def request(**changes):
    usual = {"files": None, "prompt": "", "futures": 2, "num_frames": 5, "fps": 8.0}
    usual |= {"temperature": 1.0, "guidance_scale": 1.0, "seed": 3}
    return Request(**(usual | changes))


def test_future_k_is_the_sample_of_seed_plus_k(model):
    result = list(futures(model, request()))
    assert len(result) == 2
    assert np.array_equal(result[1], model.sample(num_frames=5, fps=8.0, seed=4)[0])


def test_futures_of_an_upload_begin_with_its_last_frames(model, tmp_path):
    side, channels = model.config.frame_size, model.config.channels
    film = np.random.default_rng(0).integers(0, 255, (9, side, side, channels), np.uint8)
    write.mp4(tmp_path / "film.mp4", film, 8.0)
    (future,) = futures(model, request(files=[str(tmp_path / "film.mp4")], futures=1))
    assert future.shape == (5, side, side, channels)
    again = next(futures(model, request(futures=1)))
    assert not np.array_equal(future, again)


def test_prompt_to_a_model_without_text_is_refused(model):
    with pytest.raises(UserError, match="prompt"):
        list(futures(model, request(prompt="a ball")))


def test_untouched_field_is_no_prompt_and_no_number_is_named(model):
    assert len(list(futures(model, request(prompt=None, futures=1)))) == 1
    with pytest.raises(UserError, match="seed is empty"):
        list(futures(model, request(seed=None)))


def test_page_draws_futures_as_they_come(model, tmp_path, monkeypatch):
    import gradio

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    blocks = studio.page(gradio, model, tmp_path)
    _, address, _ = blocks.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    try:
        job = Client(address, verbose=False).submit(*request(), api_name="/run")
        films, files = job.result(timeout=120)
        counts = [len(paths) for _, paths in job.outputs()]
        assert counts == [1, 2]
        assert films.count("<video") == 1
        assert len(files) == 2
    finally:
        blocks.close()


def test_studio_without_gradio_names_the_extra(folder, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **keywords):
        if name == "gradio":
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"sdevid\[studio\]"):
        studio.launch(folder, "127.0.0.1", 0)


def test_fault_of_a_request_is_shown_as_text(model, tmp_path, monkeypatch):
    """Gradio shows an error's message as HTML."""
    import gradio

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    blocks = studio.page(gradio, model, tmp_path)
    (run,) = blocks.fns.values()
    upload = tmp_path / "<img src=x onerror=alert(1)>.mp4"
    upload.write_text("no video")
    with pytest.raises(gradio.Error) as fault:
        next(run.fn(*request(files=[str(upload)])))
    assert "<" not in fault.value.message
    assert "&lt;img src=x" in fault.value.message


def test_port_of_the_studio_that_is_taken_is_named(folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"port {port} on 127.0.0.1 .* another by --port"):
            studio.launch(folder, "127.0.0.1", port)


@pytest.mark.slow
def test_studio_leaves_no_folder_behind(folder, tmp_path):
    """Ended by Ctrl-C, as a visitor ends it, after a video was made."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "sdevid", "studio", str(folder), "--port", str(port)]
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        for line in served.stdout:
            if str(port) in line:
                break
        client = Client(f"http://127.0.0.1:{port}", verbose=False, download_files=False)
        client.predict(*request(futures=1), api_name="/run")
        assert list(tmp_path.glob("sdevid-studio-*"))
        served.send_signal(signal.SIGINT)
        served.wait(timeout=60)
    assert not list(tmp_path.iterdir())
    assert served.returncode == 0
