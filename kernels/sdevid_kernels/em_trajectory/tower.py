"""SiLU networks of one depth that see the same state, side by side: forward and back by hand.

One product makes the first layers of all, one SiLU a layer runs over all. Weight gradients are
gathered over a few hundred rows of several steps in one product, while they are in the cache. The
buffers outlive a solve: networks are bound to them for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from sdevid_kernels.em_trajectory.products import MKL, OneDNN, by_onednn, quickest

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


class Layer(NamedTuple):
    """One network's product: `weight` between what it reads and what it writes."""

    products: type[MKL]
    source: Steps
    weight: Tensor
    bias: Tensor
    to: Steps


class Tower:
    """What networks make of `steps` states, and keep for the way back."""

    def __init__(self, units: list[list[int]], like: Tensor, steps: int) -> None:
        self.units, self.depth = units, len(units) - 1
        self.rows, self.size = like.shape
        self.before = [Side(like, steps, layer) for layer in units[:-1]]
        self.value = [Apart(like, steps, layer) for layer in units[:-1]]
        self.out = Apart(like, steps, units[-1])
        self._wide = quickest(self.rows, self.size, sum(units[0]), like) is OneDNN
        self.networks: list[Weights] = []

    def bind(self, networks: list[Weights]) -> None:
        """Take these networks' weights until they are let go by binding none."""
        self.networks, self._behind = networks, []
        if networks:
            self.first = torch.cat([weights[0] for weights in networks])
            self.first_t = self.first.t()
            self._behind = [self._layer(n) for n in range(1, self.depth + 1)]

    def _layer(self, n: int) -> list[Layer]:
        made = []
        for at, weights in enumerate(self.networks):
            weight, bias = weights[2 * n - 1 : 2 * n + 1]
            products = quickest(self.rows, weight.shape[1], len(weight), weight)
            to = self.out.views[at] if n == self.depth else self.before[n].views[at]
            made.append(Layer(products, self.value[n - 1].views[at], weight.t(), bias, to))
        return made

    def step(self, k: int, z: Tensor, shifts: Sequence[Tensor]) -> None:
        """Outputs of step `k` at `z`, in `out.views[network][k]`. `shifts`: of the first layers."""
        first = self.before[0]
        if self._wide:
            made = by_onednn(z, self.first_t)
            for view, part, shift in zip(first.views, first.columns, shifts, strict=True):
                torch.add(made[:, part], shift, out=view[k])
        else:
            for view, shift in zip(first.views, shifts, strict=True):
                view[k].copy_(shift)
            first.steps[k].addmm_(z, self.first_t)
        for n, layer in enumerate(self._behind):
            befores = self.before[n].views
            for before, (products, source, weight, bias, to) in zip(befores, layer, strict=True):
                _silu(before[k], out=source[k])
                products.put_on(to[k], bias, source[k], weight)


class TowerBack:
    """The way back through a tower, `chunk` steps at a time."""

    def __init__(self, tower: Tower, like: Tensor, chunk: int) -> None:
        self.tower = tower
        self.grads = [Side(like, chunk, layer) for layer in tower.units[:-1]]
        self.room = [[like.new_empty(tower.rows, n) for n in layer] for layer in tower.units[:-1]]
        self.out = Apart(like, chunk, tower.units[-1])
        units = sum(tower.units[0])
        self._to_state = quickest(tower.rows, units, tower.size, like)
        self._gathered = quickest(tower.size, tower.rows * chunk, units, like)

    def begin(self) -> None:
        """Take the weights that the tower is bound to; their gradients are 0."""
        tower = self.tower
        self.first = torch.zeros_like(tower.first_t)
        self.made = [[torch.zeros_like(x) for x in weights] for weights in tower.networks]
        self._layers = [(n - 1, self._layer(n)) for n in range(tower.depth, 0, -1)]

    def end(self) -> list[Tensor]:
        """The gradients, in the order in which the weights were given, and let go of them."""
        for made, columns in zip(self.made, self.grads[0].columns, strict=True):
            made[0] = self.first[:, columns].t()
        made = [tensor for made in self.made for tensor in made]
        del self.first, self.made, self._layers
        return made

    def _layer(self, n: int) -> list[Layer]:
        made = []
        for at, weights in enumerate(self.tower.networks):
            weight, bias = weights[2 * n - 1 : 2 * n + 1]
            above = self.out.views[at] if n == self.tower.depth else self.grads[n].views[at]
            products = quickest(self.tower.rows, len(weight), weight.shape[1], weight)
            made.append(Layer(products, above, weight, bias, self.grads[n - 1].views[at]))
        return made

    def step(self, k: int, place: int, into: Tensor) -> None:
        """Add step `k`'s share to the state's gradient; `out` holds the outputs'."""
        for n, layer in self._layers:
            befores = self.tower.before[n].views
            for before, room, parts in zip(befores, self.room[n], layer, strict=True):
                products, above, weight, _, below = parts
                grad = products.made(above[place], weight, room)
                _silu_backward(grad, before[k], grad_input=below[place])
        self._to_state.add(into, self.grads[0].steps[place], self.tower.first)

    def gather(self, first: int, states: Tensor) -> None:
        """Add the weights' gradients of the steps from `first` on, which started at `states`."""
        count = len(states)
        tower, rows = self.tower, count * states.shape[1]
        grads = self.grads[0].whole[:count].flatten(0, 1)
        self._gathered.add(self.first, states.flatten(0, 1).t(), grads)
        for at, made in enumerate(self.made):
            for n in range(1, tower.depth + 1):
                side = self.out if n == tower.depth else self.grads[n]
                up = side.parts[at][:count].flatten(0, 1)
                value = tower.value[n - 1].parts[at][first : first + count].flatten(0, 1)
                products = quickest(up.shape[1], rows, value.shape[1], up)
                products.add(made[2 * n - 1], up.t(), value)
                made[2 * n] += up.sum(0)
