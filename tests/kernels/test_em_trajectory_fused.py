"""The whole chain in one launch each way, against autograd through its reference."""

from functools import partial

import pytest
import torch
from sdevid_kernels.em_trajectory import em_trajectory, why_not
from sdevid_kernels.em_trajectory.reference import Diffusion, Network, Posterior, Reading
from sdevid_kernels.em_trajectory.triton import launch, operator
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sdevid.sde.noise import Brownian
from sdevid.types import TICKS_PER_UNIT

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.gpu] if DEVICE == "cuda" else []  # else Triton's interpreter runs them
ALL = {"depth": 3, "heads": 2, "bound": 2.0, "unit": 0.7, "own": True, "bends": 2}  # every form


def _leaf(*shape: int, scale: float = 1.0) -> Tensor:
    return (scale * torch.randn(shape)).to(DEVICE).requires_grad_()


def _network(inputs: int, hidden: int, depth: int, outputs: int) -> Network:
    def layer(out: int, into: int) -> tuple[Tensor, Tensor]:
        return _leaf(out, into, scale=into**-0.5), _leaf(out, scale=0.1)

    inner = tuple(layer(hidden, hidden) for _ in range(depth - 1))
    return Network(layer(hidden, inputs)[0], inner, layer(outputs, hidden))


def _case(
    rows: int = 4,
    size: int = 5,
    hidden: int = 8,
    steps: int = 3,
    depth: int = 1,
    heads: int = 1,
    bound: float | None = None,
    unit: float | None = None,
    own: bool = False,
    bends: int = 0,
    still: bool = False,
    saved: tuple[int, ...] | None = None,
) -> dict:
    """em_trajectory's arguments. `heads` 0: the prior, 2: with a width; `bends` 2: Stratonovich."""
    torch.manual_seed(1)
    dt = 0.05 * torch.arange(rows, device=DEVICE).float().expand(steps, -1)  # row 0 stands still
    g = (0.2 + torch.rand(rows, size)).to(DEVICE).requires_grad_()
    if bends:
        g = Diffusion(g, _leaf(rows, size), _leaf(rows, size), 0.1, -0.5, bends == 2)
    posterior = None
    if heads:
        network = _network(size, hidden, depth, heads * size)
        shifts = _leaf(1 if still else steps, rows, hidden)
        posterior = Posterior(network, shifts, Reading(bound, heads == 2, unit, own))
    return {
        "z": _leaf(rows, size),
        "drift": _network(size, hidden, depth, size),
        "drift_shift": _leaf(rows, hidden),
        "diffusion": g,
        "posterior": posterior,
        "dt": dt,
        "noise": torch.randn(steps, rows, size).to(DEVICE) * dt.sqrt()[..., None],
        "saved": saved,
    }


def _leaves(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.requires_grad else []
    parts = value.values() if isinstance(value, dict) else value
    return [x for part in parts if isinstance(part, Tensor | tuple) for x in _leaves(part)]


def _values_and_gradients(case: dict, setting: str) -> list[Tensor]:
    trajectory = em_trajectory(**case, setting=setting)
    scale = torch.arange(1, len(case["z"]) + 1, device=DEVICE)
    loss = (
        trajectory.states.square().sum()
        + (trajectory.energy * scale + 2 * trajectory.width_kl * scale).sum()
    )
    return [*trajectory, *torch.autograd.grad(loss, _leaves(case))]


def _agrees(case: dict) -> None:
    want = _values_and_gradients(case, "reference")
    got = _values_and_gradients(case, "triton")
    torch.testing.assert_close(got, want, rtol=1e-4, atol=2e-5)


FORMS = [
    {"rows": 18, "hidden": 40, "heads": 2, "bound": 2.0},
    {"heads": 0},
    {"heads": 0, "depth": 2, "bends": 1},
    {"size": 20, "depth": 2, "bends": 2},
    {"depth": 3, "heads": 2, "unit": 0.7},
    {"size": 70, "hidden": 33, "heads": 2, "unit": 0.7, "own": True, "bound": 2.0, "steps": 2},
    {**ALL, "steps": 2},
    {**ALL, "size": 66, "depth": 2, "steps": 2},
    {"heads": 2, "steps": 10, "saved": (0, 2, 9)},
    {"depth": 2, "steps": 10, "still": True, "saved": (10,)},
    {"depth": 2, "bends": 1, "steps": 11, "saved": (4, 9)},
]


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_every_form_agrees_with_autograd(options):
    _agrees(_case(**options))


def _pretend(monkeypatch, processors: int, shared: int = 0) -> None:
    """A device of so many multiprocessors, with so many bytes that a block may share."""
    for module in (launch, operator):
        monkeypatch.setattr(module, "processors", lambda _device: processors)
    monkeypatch.setattr(launch, "shared_memory", lambda _device: shared)


@pytest.mark.parametrize(
    ("options", "processors", "want"),
    [
        ({"rows": 5, "heads": 0}, 5, (1, False)),
        ({"rows": 18, "steps": 2, "depth": 2}, 8, (2, True)),
        ({"rows": 3, "steps": 2, "bends": 2, "bound": 2.0, "depth": 3, "heads": 2}, 2, (2, True)),
        ({"rows": 9, "steps": 2, "heads": 2}, 3, (4, True)),
        ({"rows": 9, "steps": 9, "still": True, "saved": (0, 9), "heads": 2}, 2, (8, True)),
        ({"rows": 9, "steps": 2, "size": 20, "hidden": 33, "unit": 0.7, "own": True}, 2, (8, True)),
    ],
    ids=str,
)
def test_rows_over_more_processors_and_resident_weights_agree(
    options, processors, want, monkeypatch
):
    rows, is_resident = want
    _pretend(monkeypatch, processors, shared=2**20 if is_resident else 0)
    seen = []
    constants = launch.Launch._constants
    noted = lambda *a: seen.append(constants(*a)) or seen[-1]  # noqa: E731
    monkeypatch.setattr(launch.Launch, "_constants", noted)
    _agrees(_case(**options))
    assert [(x.ROWS, x.RESIDENT) for x in seen] == [(rows, is_resident), (rows, False)]


@pytest.mark.parametrize(
    ("rows", "processors", "want"),
    [(16, 132, 1), (132, 132, 1), (264, 132, 2), (265, 132, 2), (4096, 132, 16), (16, 1, 16)],
)
def test_rows_of_a_block_leave_no_processor_idle_that_could_work(rows, processors, want):
    each = launch.block_rows(rows, processors)
    assert each == want
    assert each == 1 or -(-rows // each) >= processors
    assert each == 16 or -(-rows // (2 * each)) < processors


def test_few_programs_take_many_blocks_of_rows(monkeypatch):

    _pretend(monkeypatch, processors=2)
    case = _case(rows=34, size=3, steps=2)
    _agrees(case)
    again = [_values_and_gradients(case, "triton") for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*again, strict=True))  # in no order but its own


@pytest.mark.parametrize("tokens", [1, 2])
def test_kernel_draws_the_paths_own_noise(tokens):
    """Rows of a clip are tokens; the increments are those of its Brownian path."""
    case = _case(rows=6, size=8, steps=3)
    clips, cell = 6 // tokens, 768
    serial = torch.arange(clips) + 2**34
    ticks = (torch.arange(4) * cell + 5 * cell).expand(clips, -1)
    path = Brownian(9, serial, (tokens, 8), cell)
    case["dt"] = torch.full_like(case["dt"], cell / TICKS_PER_UNIT)
    case["noise"] = path.increments(ticks).transpose(0, 1).reshape(3, 6, 8).to(DEVICE)
    want = em_trajectory(**case, setting="reference")
    path_cell = (ticks[:, :-1] // cell).t().contiguous().to(DEVICE)
    case["noise"] = (9, serial.to(DEVICE), path_cell)
    for setting in ("triton", "auto", "reference"):
        got = em_trajectory(**case, setting=setting)
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


class _Launches(TorchDispatchMode):
    """Notes launches, torch operators that compute and kernels put in place of ours, and the bytes
    that each of our operators takes beside what it returns."""

    FREE = ("empty", "view", "detach", "select", "slice", "expand", "t.", "as_strided", "alias")

    def __init__(self, kernel) -> None:
        super().__init__()
        self.kernel, self.names, self.made, self.beside = kernel, [], [], []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        if name.startswith("sdevid."):
            self.made.clear()
            with self:
                out = getattr(self.kernel, name.split(".")[1])._init_fn(*args, **(kwargs or {}))
            returned = sum(x.untyped_storage().nbytes() for x in out)
            self.beside.append(sum(x.untyped_storage().nbytes() for x in self.made) - returned)
            return out
        output = function(*args, **(kwargs or {}))
        if "empty" in name:
            self.made.append(output)
        if not any(part in name.split("aten.")[-1] for part in self.FREE):
            self.names.append(name)
        return output

    def __getitem__(self, grid: tuple[int]):
        return lambda *_arguments, **_settings: self.names.append("ours")


def _counted(case: dict, monkeypatch: pytest.MonkeyPatch) -> _Launches:
    """A forward and a backward pass of `case` whose kernels only count themselves."""

    counted = _Launches(operator)
    monkeypatch.setattr(operator.passes, "forward", counted)
    monkeypatch.setattr(operator.passes, "backward", counted)
    arguments = {name: value for name, value in case.items() if name != "noise"}
    run = partial(operator.launch_trajectory, **arguments)
    run(noise=case["noise"])  # what is kept from call to call is there
    counted.names.clear()
    counted.beside.clear()
    with counted:
        trajectory = run(noise=case["noise"])
    ups = [torch.ones_like(x) for x in trajectory]
    with counted:
        torch.autograd.grad(trajectory, _leaves(case), ups)
    return counted


@pytest.mark.parametrize("steps", [2, 50])
@pytest.mark.parametrize("options", [{"heads": 2}, ALL], ids=str)
def test_launches_do_not_grow_with_steps(options, steps, monkeypatch):
    names = _counted(_case(**options, steps=steps), monkeypatch).names
    assert names.count("ours") == 2
    assert len(names) <= 8, names


def test_memory_does_not_grow_with_steps_between_frames(monkeypatch):
    """Beside what goes in and out, which with the states at anchors is all that does."""
    beside = []
    for steps in (16, 48):
        case = _case(**ALL, still=True, steps=steps, saved=(0, steps // 2, steps))
        beside.append(_counted(case, monkeypatch).beside)
    assert len(beside[0]) == 2
    assert beside[0] == beside[1]


@pytest.mark.parametrize(
    ("saved", "still"), [(None, False), ((0, 20, 40), False), ((0, 20, 40), True)]
)
def test_four_bytes_an_element_and_step_are_kept(saved, still):
    case = _case(heads=2, steps=40, saved=saved, still=still)
    inputs = {x.untyped_storage().data_ptr() for x in [*_leaves(case), case["dt"], case["noise"]]}
    kept = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        em_trajectory(**case, setting="triton")
    own = sum(size for storage, size in kept.items() if storage not in inputs)
    indices = 8 * (len(case["dt"]) + 1) + 8  # of the saved points, and the unused clip
    states = 4 * case["z"].numel() * (1 + len(case["dt"]))
    assert own <= states + indices
    if still:
        assert own - indices <= states / 6  # anchors alone


def test_networks_that_do_not_fit_are_named():
    def refused(**options: object) -> str | None:
        case = _case(**options)
        return why_not(*(case[name] for name in ("z", "drift", "posterior", "dt", "noise")))

    assert refused() is None
    assert refused(**ALL) is None
    assert "1, 2 or 3 hidden layers" in refused(depth=4)
    assert "state of 257" in refused(size=257)
    assert "hidden layer of 513" in refused(hidden=513)
    case = _case(depth=2)
    case["drift"] = case["drift"]._replace(hidden=())
    arguments = [case[name] for name in ("z", "drift", "posterior", "dt", "noise")]
    assert "not the same" in why_not(*arguments)


def test_networks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="no kernel takes this chain: drift and control"):
        em_trajectory(**_case(depth=4, steps=2), setting="triton")


def test_operators_pass_torchs_checks(monkeypatch):
    """Schema, shapes and gradients, as torch.compile relies on them."""
    from sdevid_kernels.em_trajectory.triton import operator

    case = _case(depth=2, heads=2, bends=1, steps=2, saved=(1, 2))
    calls = []
    for name in ("em_trajectory", "em_trajectory_backward"):
        op = getattr(operator, name)

        def noted(*arguments, op=op):
            calls.append((op, [_detached(x) for x in arguments]))
            return op(*arguments)

        monkeypatch.setattr(operator, name, noted)
    _values_and_gradients(case, "triton")
    assert len(calls) == 2
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    for op, arguments in calls:
        torch.library.opcheck(op, arguments, test_utils=checks)


def _detached(value: object) -> object:
    if isinstance(value, list):
        return [_detached(x) for x in value]
    if isinstance(value, Tensor):
        return value.detach().requires_grad_(value.requires_grad)
    return value


def test_compiled_solve_equals_the_eager_one():
    case = _case(depth=2, heads=2, steps=2, saved=(0, 2))
    shifts = case["posterior"].shifts

    def solve(shifts: Tensor) -> Tensor:
        arguments = case | {"posterior": case["posterior"]._replace(shifts=shifts)}
        trajectory = em_trajectory(**arguments, setting="triton")
        return (
            trajectory.states.square().sum() + trajectory.energy.sum() + trajectory.width_kl.sum()
        )

    results = []
    for run in (solve, torch.compile(solve, backend="aot_eager")):
        loss = run(shifts)
        results.append([loss, *torch.autograd.grad(loss, shifts)])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)
