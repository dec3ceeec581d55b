import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sdevid.models.consistency import WarpHead, frame_difference, warp


@given(right=st.integers(-3, 3), down=st.integers(-3, 3))
def test_warp_by_whole_pixels_shifts_and_repeats_the_edge(right, down):
    image = torch.rand(2, 3, 7, 9)
    flow = torch.tensor([right, down], dtype=torch.float32).view(1, 2, 1, 1).expand(2, 2, 7, 9)
    rows = (torch.arange(7) + down).clamp(0, 6)
    columns = (torch.arange(9) + right).clamp(0, 8)
    torch.testing.assert_close(warp(image, flow), image[:, :, rows][:, :, :, columns])


def test_warp_between_pixels_is_linear_with_slope_as_gradient():
    ramp = torch.arange(8.0).expand(1, 1, 4, 8).contiguous()
    flow = torch.zeros(1, 2, 4, 8)
    flow[:, 0] = 0.25
    flow.requires_grad_()
    shifted = warp(ramp, flow)
    torch.testing.assert_close(shifted[..., :7], ramp[..., :7] + 0.25)
    shifted[..., :7].sum().backward()
    torch.testing.assert_close(flow.grad[:, 0, :, :7], torch.ones(1, 4, 7))


def test_warp_head_mask_chooses_image_or_first_frame():
    head = WarpHead(nn.Conv2d(4, 3, 1))
    features, images = torch.randn(2, 5, 2, 6, 6), torch.rand(2, 5, 1, 6, 6)
    head.mask_start = -100.0
    torch.testing.assert_close(head(features, images), images)
    head.mask_start = 100.0
    torch.testing.assert_close(head(features, images), images[:, :1].expand_as(images))


@pytest.mark.parametrize("shifted", [0.0, 0.3])
def test_frame_difference_ignores_a_constant_error_and_padding(shifted):
    real = torch.rand(2, 4, 1, 3, 3, dtype=torch.float64)
    decoded = real + 0.1
    decoded[:, 1] += shifted
    decoded[:, 3] += 5.0
    counts = torch.tensor([[True, True, True, False]]).expand(2, 4)
    torch.testing.assert_close(
        frame_difference(decoded, real, counts), torch.full((2,), 2 * 9 * shifted).double()
    )
