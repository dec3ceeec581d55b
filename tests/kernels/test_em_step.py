"""The fused step against its reference, run by the interpreter where there is no GPU."""

import pytest
import torch
from sdevid_kernels.em_step import em_step, reference
from torch import Tensor
from torch.utils.checkpoint import checkpoint

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.gpu] if DEVICE == "cuda" else []  # else Triton's interpreter runs them
HALF = [torch.bfloat16] if torch.cuda.is_available() else []  # the interpreter truncates bf16
NAMES = ("drift", "diffusion", "control", "width", "slope")


def _inputs(
    shape: tuple[int, ...], names: tuple[str, ...], dtype: torch.dtype
) -> dict[str, Tensor]:
    torch.manual_seed(0)
    made = {name: torch.randn(shape, device=DEVICE) for name in names}
    made["diffusion"] = 0.3 + made["diffusion"].square()
    if "width" in made:
        made["width"] = torch.sigmoid(made["width"] + 2)
    return {name: x.to(dtype).requires_grad_() for name, x in made.items()}


def _key(batch: int) -> tuple[int, Tensor, Tensor]:
    serial = 2**33 + 5 * torch.arange(batch, device=DEVICE)
    return 2**63 + 9, serial, torch.arange(batch, device=DEVICE) + 3


def _dt(batch: int) -> Tensor:
    return 0.01 * torch.arange(batch, device=DEVICE).float()  # the first step is of no time


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ((3, 1100), NAMES),
        ((2, 3, 5, 7), NAMES[:4]),
        ((4, 1), NAMES[:3]),
        ((2, 6), NAMES[:2]),
        ((2, 10), ("drift", "diffusion", "slope")),
    ],
)
def test_step_and_gradients_are_the_references(shape, names, dtype):
    z = torch.randn(shape, device=DEVICE, requires_grad=True)
    inputs = _inputs(shape, names, dtype)
    results = {}
    for setting in ("triton", "reference"):
        moved, kl = em_step(z, dt=_dt(shape[0]), noise=_key(shape[0]), setting=setting, **inputs)
        loss = moved.square().sum() + (kl * torch.arange(1, shape[0] + 1, device=DEVICE)).sum()
        gradients = torch.autograd.grad(loss, [z, *inputs.values()])
        results[setting] = [moved, kl, *gradients]
    for got, want in zip(results["triton"], results["reference"], strict=True):
        assert got.dtype == want.dtype
        tolerance = 2e-5 if dtype == torch.float32 else 1e-2
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)
    assert torch.equal(results["triton"][0][0], z[0])  # no time: no move
    assert float(results["triton"][1][0].detach()) == 0


def test_kernel_is_as_accurate_as_reference():
    z, inputs = torch.randn(2, 900, device=DEVICE), _inputs((2, 900), NAMES, torch.float32)
    dw, dt = torch.randn(2, 900, device=DEVICE), torch.tensor([0.1, 0.2], device=DEVICE)
    wide = {name: x.double() for name, x in inputs.items()}
    exact = reference.em_step(z.double(), dt=dt.double(), dw=dw.double(), **wide)
    same = reference.em_step(z, dt=dt, dw=dw, **inputs)
    fused = em_step(z, dt=dt, noise=dw, setting="triton", **inputs)
    for want, usual, got in zip(exact, same, fused, strict=True):
        allowed = (usual - want).abs().max()
        assert (got - want).abs().max() <= 2 * allowed + 1e-6


def test_nothing_but_inputs_is_saved():
    z, inputs = torch.randn(2, 64, device=DEVICE), _inputs((2, 64), NAMES, torch.float32)
    known = {x.untyped_storage().data_ptr() for x in inputs.values()}
    strange = []

    def pack(tensor: Tensor) -> Tensor:
        if tensor.numel() > 2 and tensor.untyped_storage().data_ptr() not in known:
            strange.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        em_step(z, dt=_dt(2), noise=_key(2), setting="triton", **inputs)
    assert not strange


def test_step_works_in_checkpoints_and_passes_the_operator_checks():
    from sdevid_kernels.em_step import kernel

    z, inputs = torch.randn(2, 9, device=DEVICE), _inputs((2, 9), NAMES, torch.float32)

    def loss(control: Tensor) -> Tensor:
        given = inputs | {"control": control}
        moved, kl = em_step(z, dt=_dt(2), noise=_key(2), setting="triton", **given)
        return moved.square().sum() + kl.sum()

    want = torch.autograd.grad(loss(inputs["control"]), inputs["control"])
    again = checkpoint(loss, inputs["control"], use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(again, inputs["control"]), want)
    seed, serial, place = 5, *_key(2)[1:]
    arguments = (z, *inputs.values(), _dt(2), None, serial, place, seed)
    torch.library.opcheck(
        kernel.em_step,
        arguments,
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )


def test_coefficients_that_broadcast():
    z = torch.randn(3, 4, 2, device=DEVICE)
    drift, g = torch.randn(3, 4, 1, device=DEVICE), torch.rand(1, 4, 1, device=DEVICE)
    g.requires_grad_()
    made = []
    for setting in ("triton", "reference"):
        moved, _ = em_step(z, drift, g, _dt(3), _key(3), setting=setting)
        made.append([moved, *torch.autograd.grad(moved.square().sum(), g)])
    torch.testing.assert_close(made[0], made[1], rtol=1e-5, atol=1e-5)


def test_what_does_not_fit_is_refused():
    z, one = torch.randn(3, 4), torch.ones(3, 4)
    with pytest.raises(ValueError, match="control has shape"):
        em_step(z, one, one, torch.ones(3), one, control=torch.ones(3, 5))
    with pytest.raises(ValueError, match="drift is on meta"):
        em_step(z, one.to("meta"), one, torch.ones(3), one)
    with pytest.raises(ValueError, match="give 'auto', 'triton' or 'reference'"):
        em_step(z, one, one, torch.ones(3), one, setting="fast")
