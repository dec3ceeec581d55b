"""Which products of numpy's the kernels are offered, and on how many cores they run."""

import os
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
from sdevid_kernels.em_trajectory import products

from sdevid.sde import openblas

LIBRARY = openblas._library()
needs_openblas = pytest.mark.skipif(not len(LIBRARY), reason="numpy stands on another library")


@needs_openblas
def test_products_run_on_one_core_and_leave_the_rest_as_it_was():
    with LIBRARY.limit(limits=2):
        with openblas.on_one_core():
            assert [each["num_threads"] for each in LIBRARY.info()] == [1] * len(LIBRARY)
        assert [each["num_threads"] for each in LIBRARY.info()] == [2] * len(LIBRARY)


@needs_openblas
def test_narrow_kernels_are_not_offered():
    """As OPENBLAS_CORETYPE asks for."""
    said = (
        "from sdevid.sde import openblas; from sdevid_kernels.em_trajectory import products;"
        "openblas.offer(); print(openblas.is_wide(), products._small)"
    )
    narrow = os.environ | {"OPENBLAS_CORETYPE": "Haswell"}
    command = [sys.executable, "-c", said]
    done = subprocess.run(command, env=narrow, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "[]"]


def test_a_library_taken_gets_the_small_products_of_float32_alone(monkeypatch):
    small = products.Small(openblas.OpenBLAS, 8, nullcontext)
    monkeypatch.setattr(products, "_small", [])
    monkeypatch.setattr(products, "mkl_holds_back", lambda: True)
    products.take(small)
    single, double = torch.empty(0), torch.empty(0, dtype=torch.float64)
    assert products.quickest(2, 2, 2, single) is openblas.OpenBLAS
    assert products.quickest(2, 2, 3, single) is products.MKL
    assert products.quickest(2, 2, 2, double) is products.MKL
