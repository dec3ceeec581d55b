"""The fused step against its reference, run by the interpreter where there is no GPU."""

import pytest
import torch
from sdevid_kernels.em_step import em_step, reference
from torch import Tensor
from torch.utils.checkpoint import checkpoint

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.gpu] if DEVICE == "cuda" else []  # else Triton's interpreter runs them
HALF = [torch.bfloat16] if torch.cuda.is_available() else []  # the interpreter truncates bf16
NAMES = ("drift", "diffusion", "control", "width")


def _inputs(
    shape: tuple[int, ...], names: tuple[str, ...], dtype: torch.dtype
) -> dict[str, Tensor]:
    torch.manual_seed(0)
    coefficients = {name: torch.randn(shape, device=DEVICE) for name in names}
    coefficients["diffusion"] = 0.3 + coefficients["diffusion"].square()
    if "width" in coefficients:
        coefficients["width"] = torch.sigmoid(coefficients["width"] + 2)
    return {name: x.to(dtype).requires_grad_() for name, x in coefficients.items()}


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
        ((2, 4, 256), NAMES),  # whole programs, without masks
        ((2, 3, 5, 7), NAMES),
        ((4, 1), NAMES[:3]),
        ((2, 6), NAMES[:2]),
        ((2, 10), ("drift", "diffusion", "width")),
    ],
)
def test_step_and_gradients_are_the_references(shape, names, dtype):
    z = torch.randn(shape, device=DEVICE, requires_grad=True)
    inputs = _inputs(shape, names, dtype)
    results = {}
    for setting in ("triton", "reference"):
        end, kl = em_step(z, dt=_dt(shape[0]), noise=_key(shape[0]), setting=setting, **inputs)
        loss = end.square().sum() + (kl * torch.arange(1, shape[0] + 1, device=DEVICE)).sum()
        gradients = torch.autograd.grad(loss, [z, *inputs.values()])
        results[setting] = [end, kl, *gradients]
    for got, want in zip(results["triton"], results["reference"], strict=True):
        assert got.dtype == want.dtype
        tolerance = 2e-5 if dtype == torch.float32 else 1e-2
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)
    assert torch.equal(results["triton"][0][0], z[0])  # no time: no move
    assert float(results["triton"][1][0].detach()) == 0


def test_a_width_that_underflowed_leaves_step_and_gradients_finite():
    """It counts as 1e-9, in a step of time and in one of none."""
    z, inputs = torch.randn(2, 8, device=DEVICE), _inputs((2, 8), NAMES, torch.float32)
    inputs["width"] = torch.zeros(2, 8, device=DEVICE, requires_grad=True)
    end, kl = em_step(z, dt=_dt(2), noise=_key(2), setting="triton", **inputs)
    (grad,) = torch.autograd.grad(kl.sum() + end.sum(), inputs["width"])
    assert end.isfinite().all()
    assert float(kl[0].detach()) == 0
    assert bool(grad.isfinite().all())
    assert (grad[1] < 0).all()  # wider is nearer to the prior


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


def test_step_saves_nothing_but_its_inputs():
    z, inputs = torch.randn(2, 64, device=DEVICE), _inputs((2, 64), NAMES, torch.float32)
    inputs_storage = {x.untyped_storage().data_ptr() for x in inputs.values()}
    others = []

    def pack(tensor: Tensor) -> Tensor:
        if tensor.numel() > 2 and tensor.untyped_storage().data_ptr() not in inputs_storage:
            others.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        em_step(z, dt=_dt(2), noise=_key(2), setting="triton", **inputs)
    assert not others


def test_step_passes_checkpointing_and_operator_checks():
    from sdevid_kernels.em_step import kernel

    z, inputs = torch.randn(2, 9, device=DEVICE), _inputs((2, 9), NAMES, torch.float32)

    def loss(control: Tensor) -> Tensor:
        coefficients = inputs | {"control": control}
        end, kl = em_step(z, dt=_dt(2), noise=_key(2), setting="triton", **coefficients)
        return end.square().sum() + kl.sum()

    want = torch.autograd.grad(loss(inputs["control"]), inputs["control"])
    again = checkpoint(loss, inputs["control"], use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(again, inputs["control"]), want)
    seed, serial, cell = 5, *_key(2)[1:]
    arguments = (z, *inputs.values(), _dt(2), None, serial, cell, seed)
    torch.library.opcheck(
        kernel.em_step,
        arguments,
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )


def test_coefficients_that_broadcast():
    z = torch.randn(3, 4, 2, device=DEVICE)
    drift, g = torch.randn(3, 4, 1, device=DEVICE), torch.rand(1, 4, 1, device=DEVICE)
    g.requires_grad_()
    results = []
    for setting in ("triton", "reference"):
        end, _ = em_step(z, drift, g, _dt(3), _key(3), setting=setting)
        results.append([end, *torch.autograd.grad(end.square().sum(), g)])
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-5)


ONE = torch.ones(3, 4)
CLIPS = torch.arange(3)
BAD = {  # what is said: what is given otherwise
    r"control has shape \(3, 5\)": {"control": torch.ones(3, 5)},
    "drift is on meta": {"drift": ONE.to("meta")},
    "serial is on meta": {"noise": (1, CLIPS.to("meta"), CLIPS)},
    r"dt has shape \(1,\).*give \(3,\)": {"dt": torch.ones(1)},
    r"cell has shape \(2,\)": {"noise": (1, CLIPS, CLIPS[:2])},
    "noise has shape": {"noise": torch.ones(2, 4)},
    "dt holds -0.5; give a time of 0 s": {"dt": torch.tensor([0.1, -0.5, 0.1])},
    "dt holds nan": {"dt": torch.full((3,), torch.nan)},
    "diffusion holds 0; give a finite g": {"diffusion": torch.zeros(1, 4)},
    "diffusion holds nan": {"diffusion": ONE * torch.nan},
    "give 'auto', 'triton' or 'reference'": {"setting": "fast"},
}


@pytest.mark.parametrize("message", BAD)
def test_step_with_a_misfit_argument_is_refused_by_name(message):
    valid = {"z": ONE, "drift": ONE, "diffusion": ONE, "dt": torch.ones(3), "noise": ONE}
    with pytest.raises(ValueError, match=message):
        em_step(**(valid | BAD[message]))


class _Touched:
    """In place of a kernel: counts the bytes of its arguments, an element of the state."""

    def __init__(self, elements: int) -> None:
        self.elements, self.bytes = elements, []

    def __getitem__(self, grid: tuple[int]):
        def launch(**arguments):
            values = arguments.values()
            arrays = [x for x in values if isinstance(x, Tensor) and x.numel() == self.elements]
            self.bytes.append(sum(x.element_size() for x in arrays))

        return launch


def test_step_moves_16_bytes_an_element_forward_and_18_back(monkeypatch):
    """With 16-bit drift, diffusion, control and width; each is read or written once."""
    from sdevid_kernels.em_step import kernel

    z = torch.randn(2, 640, device=DEVICE)
    touched = _Touched(z.numel())
    monkeypatch.setattr(kernel, "forward", touched)
    monkeypatch.setattr(kernel, "backward", touched)
    inputs = _inputs((2, 640), NAMES, torch.bfloat16)
    results = kernel.launch_step(z, dt=_dt(2), noise=_key(2), **inputs)
    torch.autograd.grad(results, list(inputs.values()), [torch.ones_like(x) for x in results])
    assert touched.bytes == [16, 18]


def test_compiled_step_equals_the_eager_one():
    z, inputs = torch.randn(2, 9, device=DEVICE), _inputs((2, 9), NAMES, torch.float32)

    def step(control: Tensor) -> Tensor:
        coefficients = inputs | {"control": control}
        end, kl = em_step(z, dt=_dt(2), noise=_key(2), setting="triton", **coefficients)
        return end.square().sum() + kl.sum()

    results = []
    for run in (step, torch.compile(step, backend="aot_eager", fullgraph=True)):
        loss = run(inputs["control"])
        results.append([loss, *torch.autograd.grad(loss, inputs["control"])])
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-6)
