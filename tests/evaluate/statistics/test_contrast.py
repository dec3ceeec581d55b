"""The centre of contrast is the place of the one thing on a plain ground."""

from __future__ import annotations

import numpy as np
import pytest

from sdevid.evaluate.statistics.contrast import centre_of_contrast


@pytest.mark.parametrize(("ground", "thing"), [(0, 255), (200, 20)])
def test_centre_is_that_of_a_square_bright_or_dark(ground, thing):
    frames = np.full((2, 3, 16, 20, 3), ground, np.uint8)
    frames[1, 2, 4:7, 11:14] = thing
    estimate = centre_of_contrast(frames)
    assert estimate.shape == (2, 3, 2)
    assert np.allclose(estimate[1, 2], (12, 5))
    assert np.isnan(estimate[0, 0]).all()
