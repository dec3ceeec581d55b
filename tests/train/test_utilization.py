"""MFU: a clip's operations, times clips a second, over what the devices could do."""

from __future__ import annotations

import json

import factories
import pytest
import torch

from sdevid.checkpoint import Progress
from sdevid.config import parse
from sdevid.train.record import metrics
from sdevid.train.summary.flops import count_flops
from sdevid.train.summary.utilization import Utilization, ceilings, peak_flops, utilization_on

H200 = "NVIDIA H200"


def config(**more):
    return parse(factories.settings(sde=factories.VECTOR, **more))


def test_peak_follows_the_device_and_the_precision():
    bf16, tf32, fp32 = config(precision="bf16"), config(tf32=True), config()
    assert peak_flops(H200, bf16) == 989.5e12
    assert peak_flops(H200, tf32) == pytest.approx(989.5e12 / 2, rel=1e-3)
    assert peak_flops(H200, fp32) == 67e12
    assert peak_flops("NVIDIA H100 PCIe", bf16) < peak_flops("NVIDIA H100 80GB HBM3", bf16)
    assert peak_flops("some other card", bf16) is None


def test_share_of_two_devices_at_their_peak_is_one():
    utilization = Utilization(flops_per_clip=250, peak=1e6)
    assert utilization.share(8000, devices=2) == 1
    assert utilization.share(1000) == 0.25


def test_ceiling_is_the_peak_over_the_operations_of_a_clip():
    settings = config(precision="bf16")
    flops = count_flops(settings)
    expected = 989.5e12 / (flops.forward + flops.backward)
    assert f"H200 {expected:,.4g}" in ceilings(flops, settings)


def test_cpu_has_no_share():
    assert utilization_on(torch.device("cpu"), config()) is None


def test_metrics_hold_the_share_where_the_peak_is_known(make_config, world, monkeypatch):
    known = Utilization(flops_per_clip=10**6, peak=1e9)
    monkeypatch.setattr(metrics, "utilization_on", lambda *_: known)
    settings = make_config()
    settings.run_dir.mkdir(parents=True)
    with metrics.Metrics(settings, world, Progress(), total=100) as record:
        record.add({"loss": torch.tensor(1.0)})
        record.flush(Progress(clips=8, step=1), {})
    line = json.loads((settings.run_dir / "metrics.jsonl").read_text(encoding="utf-8"))
    assert line["mfu"] == pytest.approx(line["clips_per_s"] * 1e6 / 1e9)
