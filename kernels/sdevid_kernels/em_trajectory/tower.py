"""SiLU networks of one depth that see the same state, side by side: forward and back by hand.

One product makes the first layers of all, one SiLU a layer runs over all. Weight gradients are
gathered over a few hundred rows of several steps in one product, while they are in the cache. The
buffers outlive a solve: networks are bound to them for one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from sdevid_kernels.em_trajectory.products import MKL, quickest

_NEAR = 2**20  # hidden units of all steps that stay in a core's caches
_silu = torch.ops.aten.silu.out
_silu_backward = torch.ops.aten.silu_backward.grad_input

Weights = list[Tensor]  # a network's: the first layer's, then weight and bias of each one behind
Steps = tuple[Tensor, ...]  # a buffer's parts, one a step


def widths(networks: list[Weights]) -> list[list[int]]:
    """Units of each layer of each network, the outputs last."""
    depth = len(networks[0]) // 2
    rows = [[len(weights[0]) for weights in networks]]
    return rows + [[len(weights[2 * n]) for weights in networks] for n in range(1, depth + 1)]


class Side:
    """A buffer (steps, rows, units of all networks) and its parts, cut once."""

    def __init__(self, like: Tensor, steps: int, units: list[int]) -> None:
        self.whole = like.new_empty(steps, len(like), sum(units))
        ends = list(accumulate(units))
        self.columns = [slice(e - w, e) for e, w in zip(ends, units, strict=True)]
        self.parts = [self.whole[..., part] for part in self.columns]
        self.steps = self.whole.unbind(0)
        self.views = [part.unbind(0) for part in self.parts]


class Apart:
    """A buffer (steps, rows, units) for each network, cut once."""

    def __init__(self, like: Tensor, steps: int, units: list[int]) -> None:
        self.parts = [like.new_empty(steps, len(like), count) for count in units]
        self.views = [part.unbind(0) for part in self.parts]


Call = Callable[[], object]


class Tower:
    """What networks make of `steps` states, and keep for the way back.

    Weights are copied in, so that each step's calls are put together once and for all; but for MKL
    a second time, turned: other libraries would turn them at every step.
    """

    def __init__(self, units: list[list[int]], like: Tensor, states: Steps) -> None:
        self.units, self.depth, steps = units, len(units) - 1, len(states)
        self.rows, self.size = like.shape
        self.before = [Side(like, steps, layer) for layer in units[:-1]]
        self.value = [Side(like, 1, layer) for layer in units[:-1]]
        self.out = Apart(like, steps, units[-1])
        self.first = like.new_empty(sum(units[0]), self.size)
        self.weights = [self._own(like, at) for at in range(len(units[0]))]
        self._turned: list[tuple[Tensor, Tensor]] = []
        self._first = self._right(self.first)
        self._wide = bool(self._turned)
        self._behind = [[self._right(x) for x in weights[1::2]] for weights in self.weights]
        self._shift = Side(like, 1, units[0])  # of one step, where a product cannot add to it
        self._moving: list[tuple[Tensor, Steps]] = []
        self._calls = [self._step_calls(k, z) for k, z in enumerate(states)]

    def _own(self, like: Tensor, network: int) -> Weights:
        counts = [layer[network] for layer in self.units]
        made = [self.first[self.before[0].columns[network]]]
        for into, out in pairwise(counts):
            made += [like.new_empty(out, into), like.new_empty(out)]
        return made

    def _right(self, weight: Tensor) -> Tensor:
        """`weight` as a product's right factor, (in, out)."""
        if quickest(self.rows, weight.shape[1], len(weight), weight) is MKL:
            return weight.t()
        turned = weight.new_empty(weight.shape[::-1])
        self._turned.append((turned, weight))
        return turned

    def bind(self, networks: list[Weights]) -> None:
        """Take these networks' weights."""
        own = [x for weights in self.weights for x in weights]
        torch._foreach_copy_(own, [x for weights in networks for x in weights])
        for turned, weight in self._turned:
            turned.copy_(weight.t())

    def _step_calls(self, k: int, z: Tensor) -> list[Call]:
        """Step `k` from `z` on."""
        given = z, self._first
        before = self.before[0].steps[k]
        products = quickest(self.rows, self.size, sum(self.units[0]), z)
        calls = [
            products.put_on(before, self._shift.steps[0], *given)
            if self._wide
            else products.add(before, *given)
        ]
        for n in range(1, self.depth + 1):
            to = self.out if n == self.depth else self.before[n]
            calls.append(
                partial(_silu, self.before[n - 1].steps[k], out=self.value[n - 1].steps[0])
            )
            for at, weights in enumerate(self.weights):
                bias, right = weights[2 * n], self._behind[at][n - 1]
                value = self.value[n - 1].views[at][0]
                products = quickest(self.rows, len(right), right.shape[1], right)
                calls.append(products.put_on(to.views[at][k], bias, value, right))
        return calls

    def begin(self, shifts: list[Tensor], steps: int) -> None:
        """Take the first layers' shifts (steps or 1, rows, units) of the next `steps`."""
        if not self._wide:
            for part, shift in zip(self.before[0].parts, shifts, strict=True):
                part[:steps].copy_(shift)
            return
        self._moving = []
        for (to,), shift in zip(self._shift.views, shifts, strict=True):
            if len(shift) == 1:
                to.copy_(shift[0])
            else:
                self._moving.append((to, shift.unbind(0)))

    def step(self, k: int) -> None:
        """Outputs of step `k`, in `out.views[network][k]`."""
        for to, shift in self._moving:
            to.copy_(shift[k])
        for call in self._calls[k]:
            call()

    def release(self) -> None:
        """Let go of the shifts."""
        self._moving = []


class TowerBack:
    """The way back through a tower, `chunk` steps at a time; step k has place k % chunk."""

    def __init__(self, tower: Tower, chunk: int, grads: Steps, first: bool) -> None:
        like = tower.value[0].steps[0]
        self.tower = tower
        self.grads = [Side(like, chunk, layer) for layer in tower.units[:-1]]
        kept = [side.whole.numel() for side in tower.before]
        values = Side if max(kept) > _NEAR else Apart
        self.value = [values(like, chunk, layer) for layer in tower.units[:-1]]
        self.room = [Side(like, 1, layer) for layer in tower.units[:-1]]
        self.out = Apart(like, chunk, tower.units[-1])
        ways = enumerate(pairwise(grads))
        self.calls = [self._step_calls(k, k % chunk, *way, first) for k, way in ways]

    def _step_calls(
        self, k: int, place: int, into: Tensor, grad: Tensor, first: bool
    ) -> list[Call]:
        """From the outputs' gradients in `out` to the state's.

        With the `first` tower's, `into` gets the next state's gradient `grad`; others add theirs.
        SiLUs are worked out again: that is quicker than to fetch them from memory.
        """
        tower, calls = self.tower, list[Call]()
        for n in range(tower.depth, 0, -1):
            above = self.out if n == tower.depth else self.grads[n]
            before, room = tower.before[n - 1], self.room[n - 1]
            calls += self._silu_calls(n - 1, k, place)
            for at, weights in enumerate(tower.weights):
                weight = weights[2 * n - 1]
                products = quickest(tower.rows, len(weight), weight.shape[1], weight)
                calls.append(products.put(room.views[at][0], above.views[at][place], weight))
            to = self.grads[n - 1].steps[place]
            calls.append(partial(_silu_backward, room.steps[0], before.steps[k], grad_input=to))
        products = quickest(tower.rows, len(tower.first), tower.size, tower.first)
        given = self.grads[0].steps[place], tower.first
        return [
            *calls,
            products.put_on(into, grad, *given) if first else products.add(into, *given),
        ]

    def _silu_calls(self, layer: int, k: int, place: int) -> list[Call]:
        """Whole rows where they come from far: half a row at a time is fetched slowly."""
        value, before = self.value[layer], self.tower.before[layer]
        if isinstance(value, Side):
            return [partial(_silu, before.steps[k], out=value.steps[place])]
        pairs = zip(before.views, value.views, strict=True)
        return [partial(_silu, view[k], out=to[place]) for view, to in pairs]

    def begin(self) -> None:
        """The weights' gradients are 0."""
        self.first = torch.zeros_like(self.tower.first).t()
        self.made = [[torch.zeros_like(x) for x in weights] for weights in self.tower.weights]

    def end(self) -> list[Tensor]:
        """The gradients, in the order in which the weights were given, and let go of them."""
        for made, columns in zip(self.made, self.grads[0].columns, strict=True):
            made[0] = self.first[:, columns].t()
        made = [tensor for made in self.made for tensor in made]
        del self.first, self.made
        return made

    def gather(self, states: Tensor) -> None:
        """Add the weights' gradients of the chunk's steps, which started at `states`."""
        count = len(states)
        tower, rows = self.tower, count * states.shape[1]
        grads = self.grads[0].whole[:count].flatten(0, 1)
        products = quickest(tower.size, rows, grads.shape[1], grads)
        products.add(self.first, states.flatten(0, 1).t(), grads)()
        for at, made in enumerate(self.made):
            for n in range(1, tower.depth + 1):
                side = self.out if n == tower.depth else self.grads[n]
                up = side.parts[at][:count].flatten(0, 1)
                value = self.value[n - 1].parts[at][:count].flatten(0, 1)
                products = quickest(up.shape[1], rows, value.shape[1], up)
                products.add(made[2 * n - 1], up.t(), value)()
                made[2 * n] += up.sum(0)
