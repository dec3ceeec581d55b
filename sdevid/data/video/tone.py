"""High dynamic range and wide gamut to the display values of ordinary video (BT.709, 8 bits)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorTrc
from jaxtyping import Float

Pixels = Float[np.ndarray, "height width 3"]
Values = Float[np.ndarray, "..."]

_WHITE = 100.0  # cd/m2 of white on the display that BT.709 is made for (ITU-R BT.2035)
_PEAK = 1_000.0  # cd/m2 of the brightest HDR pixel, where a file does not say
_GAMMA = 2.4  # of the display that BT.709 values are made for (ITU-R BT.1886)
_HLG_GAMMA = 1.2  # system gamma of HLG on a display of 1,000 cd/m2 (BT.2100)
_TO_709 = {  # primaries to those of BT.709, both with white D65; from the xy values of each
    ColorPrimaries.BT2020: (
        (1.660491, -0.587641, -0.072850),
        (-0.124550, 1.132900, -0.008349),
        (-0.018151, -0.100579, 1.118730),
    ),
    ColorPrimaries.SMPTE432: (  # Display P3
        (1.224940, -0.224940, 0.0),
        (-0.042057, 1.042057, 0.0),
        (-0.019638, -0.078636, 1.098274),
    ),
}
_ORDINARY = {  # curves that are shown as BT.709 is
    *(ColorTrc.BT709, ColorTrc.UNSPECIFIED, ColorTrc.GAMMA22, ColorTrc.GAMMA28),
    *(ColorTrc.SMPTE170M, ColorTrc.SMPTE240M, ColorTrc.IEC61966_2_4, ColorTrc.BT1361_ECG),
    *(ColorTrc.IEC61966_2_1, ColorTrc.BT2020_10, ColorTrc.BT2020_12, 0),
}
_NAMED = {
    ColorTrc.SMPTE2084: "HDR by PQ (tone-mapped)",
    ColorTrc.ARIB_STD_B67: "HDR by HLG (tone-mapped)",
    ColorTrc.LINEAR: "linear light (made BT.709)",
}


@dataclass(frozen=True)
class ToneMap:
    """Curve and primaries of a frame's colours, and their mapping to BT.709."""

    curve: int  # FFmpeg's number of the transfer curve
    primaries: int  # FFmpeg's number of the primaries

    @property
    def needed(self) -> bool:
        """Whether the values change at all."""
        return self.curve in _NAMED or self.primaries in _TO_709

    @property
    def note(self) -> str | None:
        """What is worth counting: HDR, a wide gamut, or a curve that is not handled."""
        if self.curve in _NAMED:
            return _NAMED[ColorTrc(self.curve)]
        if self.curve not in _ORDINARY:
            return f"transfer curve {self.curve} (not handled: taken as BT.709)"
        return "wide gamut (made BT.709)" if self.primaries in _TO_709 else None

    def __call__(self, coded: Pixels) -> Pixels:
        """Map coded R'G'B' in [0, 1] to R'G'B' of BT.709 in [0, 1]."""
        light = self._linear(np.clip(coded, 0, 1))
        if self.primaries in _TO_709:
            matrix = np.array(_TO_709[ColorPrimaries(self.primaries)], np.float32)
            light = light @ matrix.T
        shown: Pixels = np.clip(light, 0, 1) ** (1 / _GAMMA)
        return shown

    def _linear(self, coded: Pixels) -> Pixels:
        """Decode to display light, 1 for its white; HDR highlights are compressed."""
        if self.curve == ColorTrc.SMPTE2084:
            return _compressed(pq_light(coded))
        if self.curve == ColorTrc.ARIB_STD_B67:
            return _compressed(hlg_light(coded))
        return coded if self.curve == ColorTrc.LINEAR else coded**_GAMMA


def tone_map(frame: VideoFrame) -> ToneMap:
    """Read the colour properties that a frame states."""
    return ToneMap(int(frame.color_trc or 0), int(frame.color_primaries or 0))


def pq_light(coded: Values) -> Values:
    """Convert values coded by the perceptual quantizer (SMPTE ST 2084) to cd/m2."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    power = np.power(coded, 1 / m2)
    ratio = np.maximum(power - c1, 0) / (c2 - c3 * power)
    light: Values = 10_000 * np.power(ratio, 1 / m1)
    return light


def pq_coded(light: Values) -> Values:
    """Code cd/m2 by the perceptual quantizer: the inverse of `pq_light`."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    power = np.power(np.clip(light, 0, 10_000) / 10_000, m1)
    coded: Values = np.power((c1 + c2 * power) / (1 + c3 * power), m2)
    return coded


def hlg_light(coded: Pixels) -> Pixels:
    """Convert hybrid log-gamma to cd/m2 on a display of 1,000 cd/m2 (ITU-R BT.2100)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(coded <= 0.5, coded**2 / 3, (np.exp((coded - c) / a) + b) / 12)
    luma = scene @ np.array([0.2627, 0.6780, 0.0593], scene.dtype)
    light: Pixels = _PEAK * np.maximum(luma, 1e-6)[..., None] ** (_HLG_GAMMA - 1) * scene
    return light


def _compressed(light: Pixels) -> Pixels:
    """Compress light, in units of the display's white, to at most 1 (ITU-R BT.2390, 5.4.1).

    It acts on the largest of the three values, so that hues stay.
    """
    largest = np.maximum(light.max(axis=-1, keepdims=True), 1e-6)
    peak = pq_coded(np.array(_PEAK))
    most = pq_coded(np.array(_WHITE)) / peak
    knee = 1.5 * most - 0.5
    level = np.minimum(pq_coded(largest) / peak, 1)
    t = np.clip((level - knee) / (1 - knee), 0, 1)
    rolled = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (-2 * t**3 + 3 * t**2) * most
    )
    target = np.where(level < knee, largest, pq_light(rolled * peak))
    compressed: Pixels = light * (target / largest / _WHITE)
    return compressed
