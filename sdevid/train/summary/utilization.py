"""Model FLOP utilization (MFU): a training's own operations over what its devices could do."""

from __future__ import annotations

from typing import NamedTuple

import torch

from sdevid.config import Config
from sdevid.train.summary.flops import Flops, count_flops

# Dense peaks in 10^12 operations a second, without sparsity, by a part of the device's name: bf16
# and TF32 on tensor cores, float32. From the makers' data sheets: NVIDIA's A100 (2020), H100 SXM
# and PCIe (2022), H200 SXM (2024); AMD's MI300X (2023).
_PEAKS = {
    "H200": (989.5, 494.7, 67.0),
    "H100 PCIe": (756.0, 378.0, 51.0),
    "H100": (989.5, 494.7, 67.0),
    "A100": (312.0, 156.0, 19.5),
    "MI300X": (1307.4, 653.7, 163.4),
}


def peak_flops(device: str, config: Config) -> float | None:
    """Return operations a second of a device in the config's precision; None if it is not known."""
    for name, (bf16, tf32, fp32) in _PEAKS.items():
        if name.lower() in device.lower():
            return 1e12 * (bf16 if config.precision == "bf16" else tf32 if config.tf32 else fp32)
    return None


def ceilings(flops: Flops, config: Config) -> str:
    """Format the clips a second that one device of each known kind could train at its peak."""
    total = flops.forward + flops.backward
    rates = ", ".join(f"{name} {(peak_flops(name, config) or 0) / total:,.4g}" for name in _PEAKS)
    return f"clips/s at the whole peak of one device, computed: {rates}"


def work_of_a_clip(config: Config) -> str:
    """Count the operations of a clip and format them, with the ceilings that they set."""
    flops = count_flops(config)
    return f"{flops}\n{ceilings(flops, config)}"


class Utilization(NamedTuple):
    """What a clip takes and a device could do: operations, and operations a second."""

    flops_per_clip: int
    peak: float

    def share(self, clips_per_s: float, devices: int = 1) -> float:
        """Return the share of the peak of `devices` that `clips_per_s` in all come to."""
        return self.flops_per_clip * clips_per_s / (self.peak * devices)


def utilization_on(device: torch.device, config: Config) -> Utilization | None:
    """Count what MFU needs; None on a device whose peak is not known, as a CPU's is not.

    None too with `encoder.frozen`, whose operations are not counted.
    """
    if device.type != "cuda" or config.encoder.frozen:
        return None
    peak = peak_flops(torch.cuda.get_device_name(device), config)
    if peak is None:
        return None
    flops = count_flops(config)
    return Utilization(flops.forward + flops.backward, peak)
