"""Try a model in the browser: upload frames or type a prompt, and see several futures as they come.

Gradio does the work of page and server; it is imported here alone.
"""

from __future__ import annotations

import html
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sdevid.errors import UserError
from sdevid.sample import picture_files, write
from sdevid.sample.film import film
from sdevid.sample.video_sde import VideoSDE
from sdevid.sample.write import Pixels

SIDE = 160  # least side of a shown film, in pixels


class Request(NamedTuple):
    """What a visitor asked for; the fields are the page's inputs in order."""

    files: list[str] | None  # a video, or pictures
    prompt: str | None  # None: the field was never touched
    futures: int
    num_frames: int
    fps: float
    temperature: float
    guidance_scale: float
    seed: int


_NUMBERS = ("futures", "num_frames", "fps", "temperature", "guidance_scale", "seed")


def futures(model: VideoSDE, request: Request) -> Iterator[Pixels]:
    """Generate the futures one by one, each uint8 (time, height, width, channels).

    Future k has seed `request.seed` + k. Raises UserError where frames or options do not fit.
    """
    empty = [name for name in _NUMBERS if getattr(request, name) is None]
    if empty:
        raise UserError(f"{empty[0].replace('_', ' ')} is empty; give a number")
    options: dict[str, Any] = {
        "num_frames": int(request.num_frames),
        "fps": float(request.fps),
        "temperature": float(request.temperature),
        "guidance_scale": float(request.guidance_scale),
    }
    prompt = (request.prompt or "").strip()
    if prompt:
        options["prompt"] = prompt
    frames = _frames(model, request.files, float(request.fps))
    for k in range(int(request.futures)):
        chosen = options | {"seed": int(request.seed) + k}
        videos = model.sample(**chosen) if frames is None else model.predict(frames, **chosen)
        yield videos[0]


def _frames(model: VideoSDE, files: list[str] | None, fps: float) -> Pixels | None:
    if not files:
        return None
    config, paths = model.config, [Path(name) for name in files]
    most = config.observation.max_context
    shape = config.frame_shape, config.channels, fps
    if len(paths) == 1:
        return picture_files.read(paths[0], None, most, *shape).frames
    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(sorted(paths)):
            shutil.copy(path, Path(folder) / f"{number:06d}{path.suffix}")
        return picture_files.read(Path(folder), None, most, *shape).frames


def launch(model_path: Path, host: str, port: int) -> None:
    """Serve the page until interrupted. Raises UserError without Gradio, a model or a free port."""
    with tempfile.TemporaryDirectory(prefix="sdevid-studio-") as folder:
        gradio, model = _gradio(folder), VideoSDE.from_pretrained(model_path)
        try:
            page(gradio, model, Path(folder)).launch(
                server_name=host, server_port=port or None, share=False, theme=_theme(gradio)
            )
        except OSError as error:
            raise UserError(
                f"port {port} on {host} cannot be listened on ({error}); give another by --port"
            ) from error


def _gradio(folder: str) -> Any:
    """Import gradio, which keeps what is uploaded and offered in `folder`."""
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder}  # before import
    try:
        import gradio
    except ImportError:
        raise UserError(
            "sdevid studio needs Gradio, which is not installed; pip install 'sdevid[studio]'"
        ) from None
    return gradio


def page(gradio: Any, model: VideoSDE, place: Path) -> Any:
    """Lay out the page: inputs on the left, the futures on the right.

    Videos are written into new folders of `place`.
    """

    def run(*inputs: Any) -> Iterator[tuple[str, list[str]]]:
        shown: list[Pixels] = []
        folder = Path(tempfile.mkdtemp(dir=place))
        paths: list[str] = []
        try:
            for video in futures(model, Request(*inputs)):
                shown.append(video)
                path = folder / f"future_{len(shown):02d}.mp4"
                write.mp4(path, video, float(inputs[4]))
                paths.append(str(path))
                yield _films(shown, float(inputs[4])), paths
        except UserError as error:
            raise gradio.Error(html.escape(str(error))) from error  # which shows it as HTML

    with gradio.Blocks(title="sdevid studio", analytics_enabled=False) as blocks:
        gradio.Markdown(f"## {model!r}")
        with gradio.Row():
            with gradio.Column(scale=1):
                inputs = _inputs(gradio, model)
                button = gradio.Button("Generate", variant="primary")
            with gradio.Column(scale=2):
                films = gradio.HTML(label="Futures")
                files = gradio.Files(label="Download", interactive=False)
        button.click(run, inputs=inputs, outputs=[films, files])
    return blocks


def _inputs(gradio: Any, model: VideoSDE) -> list[Any]:
    config, has_text = model.config, model.model.text is not None
    return [
        gradio.File(label="Initial frames: a video, or pictures", file_count="multiple"),
        gradio.Textbox(label="Prompt", visible=has_text),
        gradio.Slider(1, 8, value=3, step=1, label="Futures"),
        gradio.Slider(1, 256, value=2 * config.sequence_length, step=1, label="Frames"),
        gradio.Number(value=config.fps, label="Frames a second"),
        gradio.Slider(0.0, 2.0, value=1.0, step=0.05, label="Temperature"),
        gradio.Slider(0.0, 8.0, value=1.0, step=0.25, label="Guidance", visible=has_text),
        gradio.Number(value=0, precision=0, minimum=0, label="Seed of the first future"),
    ]


def _films(videos: list[Pixels], fps: float) -> str:
    stacked = np.stack(videos)
    return film(stacked, fps, columns=min(4, len(videos)), side=SIDE, title="futures")


def _theme(gradio: Any) -> Any:
    """Build a theme in the system's fonts, so that nothing is fetched."""
    return gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])
