"""One thread a process, and no GPU test where there is no GPU."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before triton is imported
settings.register_profile("untimed", deadline=None)  # machines are noisy; time is never asserted
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    no_gpu = pytest.mark.skip(reason="no CUDA device; make gpu-check runs it")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(no_gpu)
