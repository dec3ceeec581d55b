"""A trained model as a forecaster for others' harnesses: arrays in, a labelled ensemble out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sdevid.data import source_units
from sdevid.errors import UserError
from sdevid.sample.sampler import as_pixels, as_values
from sdevid.sample.video_sde import VideoSDE
from sdevid.sample.write import Frames
from sdevid.types import TICKS_PER_UNIT, as_frames, present_frames

ROWS = 32  # members generated at once
DIMS = ("ensemble_member", "time", "channel", "y", "x")


class Forecaster:
    """Futures of given frames at any times, as an xarray.DataArray.

    `values` says what grey levels stand for, as `evaluate --values` reads it (linear:LOW:HIGH:UNIT
    or log:LOW:HIGH:UNIT); frames are then given and forecast in those units. Without it they are
    those of the data that the model was trained on, where a transform says which.
    """

    def __init__(
        self, path: str | Path, values: str | None = None, device: str | None = None
    ) -> None:
        self.video_sde = VideoSDE.from_pretrained(path, device=device)
        source = self.video_sde.config.source
        self.units = source_units.parse(values, {}) if values else source_units.of_config(source)

    def __call__(
        self, frames: Any, times: Sequence[float], ensemble_size: int = 16, seed: int = 0
    ) -> Any:
        """Forecast `ensemble_size` members at `times`, seconds after the last of `frames`.

        `frames` (time, y, x) or (time, y, x, channel), a `DataArray` with a `time` in seconds or
        datetimes, or any array, whose frames then follow at the training rate; one of NaN alone is
        not shown to the model. Returns dims
        (ensemble_member, time, channel, y, x). Raises UserError for frames or times that do not
        fit, or where xarray is not installed.
        """
        try:
            import xarray
        except ImportError:
            raise UserError(
                "a Forecaster gives xarray, which is not installed; pip install 'sdevid[forecast]'"
            ) from None
        pixels, before = self._frames(frames)
        after = np.asarray(times, np.float64)
        if after.ndim != 1 or not len(after) or (np.diff(after, prepend=0.0) <= 0).any():
            raise UserError(f"times are {times}, but must rise from above 0, in seconds")
        if ensemble_size < 1:
            raise UserError(f"ensemble_size is {ensemble_size}, but must be 1 or more")
        members = self._sample(pixels, before, after, ensemble_size, seed)
        return xarray.DataArray(
            np.moveaxis(self.units.values(members), -1, 2),
            dims=DIMS,
            coords={"ensemble_member": np.arange(ensemble_size), "time": after},
            attrs={"units": self.units.unit, "time_units": "seconds after the last given frame"},
        )

    def forward(self, x: Any, steps: int, ensemble_size: int = 16) -> Any:
        """Forecast `steps` frames ahead at the training rate, for harnesses that count in steps."""
        interval = 1 / self.video_sde.config.fps
        return self(x, [interval * (k + 1) for k in range(steps)], ensemble_size)

    def _frames(self, frames: Any) -> tuple[Frames, NDArray[np.float64]]:
        """Convert to the model's values (time, y, x, channel), and to seconds before the last."""
        config = self.video_sde.config
        array = np.asarray(frames)
        array = array[..., None] if array.ndim == 3 else array
        shape = (*config.frame_shape, config.channels)
        if array.ndim != 4 or array.shape[1:] != shape or not len(array):
            raise UserError(
                f"frames are {np.asarray(frames).shape}, but the model takes (time, "
                f"{', '.join(map(str, shape))})"
            )
        most = config.observation.max_context
        if len(array) > most:
            raise UserError(
                f"{len(array)} frames are given, but the model takes at most {most} "
                "(observation.max_context in its config); give the last ones"
            )
        stored = array.dtype == np.uint8 and self.units.transform is None
        pixels = array if stored else self.units.mapped(array)
        is_present = present_frames(torch.from_numpy(pixels)[None])[0].numpy()
        if not is_present.any():
            raise UserError(
                f"no value of any of the {len(array)} frames was observed (all are NaN); give a "
                "frame of which some were"
            )
        return pixels[is_present], self._times(frames, len(array))[is_present]

    def _times(self, frames: Any, count: int) -> NDArray[np.float64]:
        """Read the times of `frames`, in seconds before the last."""
        coordinate = getattr(frames, "coords", {}).get("time")
        if coordinate is None:
            return np.arange(1 - count, 1, dtype=np.float64) / self.video_sde.config.fps
        apart = np.asarray(coordinate) - np.asarray(coordinate)[-1]
        if apart.dtype.kind == "m":
            apart = apart / np.timedelta64(1, "s")
        seconds: NDArray[np.float64] = apart.astype(np.float64)
        return seconds

    @torch.no_grad()
    def _sample(self, pixels: Any, before: Any, after: Any, members: int, seed: int) -> Frames:
        model, config = self.video_sde.model, self.video_sde.config
        device = next(model.parameters()).device
        seconds = np.concatenate([before, after]) - before[0]
        every = np.rint(seconds / config.time_unit * TICKS_PER_UNIT).astype(np.int64)
        ticks = torch.from_numpy(every).to(device)
        context = as_frames(torch.from_numpy(np.ascontiguousarray(pixels))[None]).to(device)
        parts = []
        for first in range(0, members, ROWS):
            serial = torch.arange(first, min(first + ROWS, members), device=device)
            count = len(serial)
            video = model.sample(
                ticks[len(before) :].expand(count, -1),
                seed=seed,
                serial=serial,
                context=context.expand(count, *context.shape[1:]),
                context_ticks=ticks[: len(before)].expand(count, -1),
            )
            parts.append(as_values(video) if self.units.transform else as_pixels(video))
        return np.concatenate(parts)
