"""The training engine. The only file that knows DeepSpeed."""

from __future__ import annotations

import atexit
import logging
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sdevid.checkpoint import ParameterShard, Slice
from sdevid.config import Config
from sdevid.console import shows
from sdevid.errors import UserError
from sdevid.models import text
from sdevid.models.text import Tokenizer
from sdevid.objectives.clip_objective import ClipObjective
from sdevid.train.checkpointing.data_only import data_only
from sdevid.train.graph import train_graph
from sdevid.train.graph.cuda_graph import CudaGraphs
from sdevid.train.graph.train_graph import Recorder, TrainGraph
from sdevid.train.health.stragglers import OwnTime
from sdevid.train.world import World
from sdevid.train.zero import deepspeed_settings
from sdevid.types import Batch

Terms = dict[str, Tensor]  # scalars
Judge = Callable[[float, float], bool]  # (loss, gradient norm) over all ranks: apply the update?


class Objective(Protocol):
    """What is trained: see sdevid.objectives."""

    def prior_parameter_names(self) -> set[str]:
        """Name the parameters that learn at `prior_learning_rate_ratio` times the rate."""
        ...


class Engine:
    """An objective with its optimizer, spread over the ranks by ZeRO.

    The objective maps (video, ticks, serial, kl_weight) to named scalars, among them "loss".
    Its parameters stay float32 under every stage and precision; with bf16 its networks run under
    autocast. Stage 3 gathers weights as modules are called, so every rank must call the same ones
    in the same order, whatever its clips. `read` turns captions into what the objective takes;
    without it, as the config says.
    """

    def __init__(
        self,
        objective: nn.Module,
        config: Config,
        world: World,
        read: Tokenizer | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.config, self.world = config, world
        self.objective = objective.to(world.device)
        self.shapes = {name: tuple(p.shape) for name, p in objective.named_parameters()}
        self._names = {id(p): name for name, p in objective.named_parameters()}
        self._read = read or text.tokenizer(config, world.device)
        self.own_time = OwnTime(world.device)
        groups = parameter_groups(objective, config)
        self._ratios = [group.pop("ratio") for group in groups]
        self._place = {id(p): i for i, group in enumerate(groups) for p in group["params"]}
        self._record_by(recorder or CudaGraphs())
        objective.register_forward_hook(_detach_all_but_loss)
        parameters = sum(p.numel() for p in objective.parameters())
        deepspeed = _deepspeed(world.device)
        _check_nvme(config)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._engine, *_ = deepspeed.initialize(
                model=objective,
                optimizer=_adamw(groups, config),
                config=deepspeed_settings(config, world.size, parameters),
                dist_init_required=False,
            )
        self.check_resident()
        self._judge_before_updates()
        self._states: dict[str, Any] = {}
        self._keep: Callable[[Any], Any] = _as_it_is
        self.write = self._engine.checkpoint_engine.save  # (state, path), without waiting for ranks
        self._engine.checkpoint_engine.save = self._catch
        self._engine._copy_recovery_script = lambda _folder: None  # `sdevid export` is ours
        if world.size == 1 and config.zero_stage == 0:
            self._engine.enable_backward_allreduce = False  # nobody to reduce with

    def _record_by(self, recorder: Recorder) -> None:
        config, world = self.config, self.world
        train_graph.check(config, world.device, recorder)
        if train_graph.unsupported(config, world.device, recorder) is None:
            self.objective.forward = TrainGraph(self.objective, recorder, world.say)

    def step(
        self,
        batches: Sequence[Batch],
        kl_weight: float,
        learning_rate: float,
        judge: Judge = lambda loss, norm: math.isfinite(loss + norm),
    ) -> Terms:
        """Take one optimizer step over this rank's micro-batches.

        The gradient is that of the loss per value of a clip. Returns the mean of each term over
        them in nats a clip; `grad_norm`, the norm over all ranks before clipping, infinite where a
        gradient is not finite; and `clipped`, 1 where that was above `gradient_clip`. `judge` is
        asked before the weights change: where it says no, weights and optimizer stay as they are.
        It must say the same on every rank, and no for what is not finite.
        """
        for group, ratio in zip(self._engine.optimizer.param_groups, self._ratios, strict=True):
            group["lr"] = learning_rate * ratio
        self._judge, totals = judge, cast(Terms, {})
        for batch in batches:
            terms = self._backward(batch, kl_weight)
            totals = {name: totals.get(name, 0) + terms[name].detach() for name in terms}
            self._loss = totals["loss"] / len(batches)
            self._engine.step()
        means = {name: total / len(batches) for name, total in totals.items()}
        clipped = (self._norm > self.config.gradient_clip).float()
        return means | {"grad_norm": self._norm, "clipped": clipped}

    def _backward(self, batch: Batch, kl_weight: float) -> Terms:
        with self.own_time:
            terms = self._forward(batch, kl_weight)
        self._engine.backward(terms["loss"] / self.config.values_per_clip)
        return terms

    def _forward(self, batch: Batch, kl_weight: float) -> Terms:
        device = self.world.device
        inputs = {"video": batch.video, "ticks": batch.ticks, "serial": batch.serial}
        inputs = {name: x.to(device, non_blocking=True) for name, x in inputs.items()}
        inputs["kl_weight"] = torch.full((), kl_weight, device=device)
        inputs |= text.text_inputs(self._read, batch, device)
        with cast(ClipObjective, self.objective).reading(batch):
            return cast(Terms, self._engine(**inputs))

    @torch.no_grad()
    def score(self, batch: Batch) -> float:
        """Compute the loss of `batch`, which every rank scores whole, at a KL weight of 1."""
        return float(self._forward(batch, 1.0)["loss"])

    def _judge_before_updates(self) -> None:
        """Ask `judge` where the norm of the gradient is known and the weights are as they were.

        Under ZeRO that is inside DeepSpeed's step, which drops a step whose norm is infinite, on
        every rank, and clears what it had gathered for it.
        """
        optimizer = self._engine.optimizer
        if self.config.zero_stage == 0:
            update = optimizer.step

            def clip_and_update() -> None:
                limit = self.config.gradient_clip
                norm = nn.utils.clip_grad_norm_(self.objective.parameters(), limit)
                if self._judged(norm)[0]:
                    update()

            optimizer.step = clip_and_update
            return
        optimizer.get_grad_norm_direct = self._norm_of_shards
        if self.config.zero_stage == 3:
            norms = optimizer._get_norm_groups
            optimizer._get_norm_groups = lambda: [self._norm_or_infinite(norms())]
        else:
            norm = optimizer.scaled_global_norm
            optimizer.scaled_global_norm = lambda: self._norm_or_infinite([norm()])

    def _norm_of_shards(self, gradients: list[Tensor], _parameters: Any) -> Tensor:
        """Compute a group's norm over all ranks in few launches; -1 where it is not finite."""
        mine = [g.detach() for g in gradients if not getattr(g, "_zero_padding", False)]
        norms = torch._foreach_norm(mine) if mine else [self._loss.new_zeros(())]
        squares = torch.stack([norm.float() for norm in norms]).square().sum()
        if self.world.size > 1:
            dist.all_reduce(squares, group=self._engine.optimizer.dp_process_group)
        norm = squares.sqrt()
        return torch.where(norm.isfinite(), norm, -1.0)

    def _norm_or_infinite(self, groups: list[Any]) -> Tensor:
        """Compute the norm over all groups, on the host; infinite where none is applied."""
        norms = torch.stack([torch.as_tensor(n, dtype=torch.float32) for n in groups])
        finite = (norms >= 0).all()  # DeepSpeed gives -1 for what is not finite
        norm = torch.where(finite, torch.linalg.vector_norm(norms), torch.inf)
        is_approved, on_host = self._judged(norm)
        return torch.tensor(on_host if is_approved else math.inf, dtype=torch.float32)

    def _judged(self, norm: Tensor) -> tuple[bool, float]:
        """Ask the judge, which waits for the device; also return the ranks' mean of `norm`."""
        self._norm = norm.detach().float()
        loss, everywhere = self.world.mean_now(torch.stack([self._loss, self._norm]))
        return self._judge(loss, everywhere), everywhere

    def parameter_shards(self) -> list[ParameterShard]:
        """List the float32 weights that this rank owns, live, and what they are shards of."""
        stage, optimizer = self.config.zero_stage, self._engine.optimizer
        if stage == 0:
            return self._whole_parameters() if self.world.main else []
        if stage == 3:
            flats, groups = optimizer.fp32_partitioned_groups_flat, optimizer.fp16_groups
            return [
                ParameterShard(flat, list(self._shards_within(group)))
                for flat, group in zip(flats, groups, strict=True)
            ]
        flats, groups = optimizer.single_partition_of_fp32_groups, optimizer.bit16_groups
        return [
            ParameterShard(flat, list(self._range_of(group, flat.numel())))
            for flat, group in zip(flats, groups, strict=True)
        ]

    def buffers(self) -> dict[str, Tensor]:
        """List the objective's state beside its parameters: the same on every rank."""
        kept = self.objective.state_dict()
        return {n: kept[n] for n, _ in self.objective.named_buffers() if n in kept}

    def _whole_parameters(self) -> list[ParameterShard]:
        return [
            ParameterShard(p.data, [Slice(name, 0, 0, p.numel())])
            for name, p in self.objective.named_parameters()
        ]

    def _range_of(self, group: list[nn.Parameter], size: int) -> Iterator[Slice]:
        """Yield this rank's range of the group's parameters end to end: stages 1 and 2."""
        left, place = self.world.rank * size, 0
        for parameter in group:
            first, last = max(place, left), min(place + parameter.numel(), left + size)
            if first < last:
                yield Slice(self._names[id(parameter)], first - place, first - left, last - first)
            place += parameter.numel()

    def _shards_within(self, group: list[nn.Parameter]) -> Iterator[Slice]:
        """Yield this rank's equal shard of each parameter, all of them end to end: stage 3."""
        place = 0
        for parameter in group:
            shard, whole = parameter.ds_tensor.ds_numel, parameter.ds_numel  # type: ignore[attr-defined]
            first = self.world.rank * shard
            if first < whole:
                count = min(shard, whole - first)
                yield Slice(self._names[id(parameter)], first, place, count)
            place += shard

    def check_resident(self) -> None:
        """Raise UserError where DeepSpeed has put away the float32 weights that `shards` gives."""
        if any(p.tensor.numel() < sum(s.count for s in p.slices) for p in self.parameter_shards()):
            raise UserError(
                "offload.optimizer is nvme, and DeepSpeed keeps this model's float32 weights on "
                "the disk; the EMA and the checkpoints need them in memory: set "
                "offload.optimizer=cpu, and let offload.parameters be nvme if need be"
            )

    def groups(self) -> list[int]:
        """List the optimizer's group of each parameter, in the order of `shapes`."""
        return [self._place[id(p)] for p in self.objective.parameters()]

    def moments(self) -> list[dict[str, Any]]:
        """List Adam's state of each of `shards()`, live: cut as the shard is.

        Empty before a step.
        """
        state = self._base_optimizer().state
        keys = self.objective.parameters() if self.config.zero_stage == 0 else self._flats()
        return [state.get(key, {}) for key in keys] if self.parameter_shards() else []

    def _flats(self) -> list[Tensor]:
        return [shard.tensor for shard in self.parameter_shards()]

    def _base_optimizer(self) -> torch.optim.Optimizer:
        optimizer = self._engine.optimizer
        return cast(torch.optim.Optimizer, getattr(optimizer, "optimizer", optimizer))

    def state_dicts(self, folder: Path, keep: Callable[[Any], Any] | None = None) -> dict[str, Any]:
        """Gather what DeepSpeed's files of this rank hold, by file name. Every rank takes part.

        Each state passes through `keep` while it is as it shall be written. Writes nothing but
        makes `folder`.
        """
        self._keep, self._states = keep or _as_it_is, {}
        self._engine.save_checkpoint(str(folder.parent), tag=folder.name, save_latest=False)
        states, self._states = self._states, {}
        return states

    def _catch(self, state_dict: Any, path: str) -> None:
        self._states[Path(path).name] = self._keep(state_dict)

    def load(self, folder: Path, *, universal: bool = False, trusted: bool = False) -> None:
        """Load weights and optimizer from DeepSpeed's files in `folder`, in a live engine too.

        `universal` is for a folder in DeepSpeed's universal layout, whose buffers are not read. The
        groups' settings stay those of this run's config. Every rank takes part. Files are read as
        data, unless they are `trusted` not to run anything: UserError where they hold more.
        """
        groups = self._engine.optimizer.param_groups
        settings = [{k: v for k, v in g.items() if k != "params"} for g in groups]
        self._engine._config.load_universal_checkpoint = universal
        try:
            with warnings.catch_warnings(), data_only(trusted=trusted):
                warnings.simplefilter("ignore")
                path, _ = self._engine.load_checkpoint(str(folder.parent), tag=folder.name)
        finally:
            self._engine._config.load_universal_checkpoint = False
        if path is None:
            raise UserError(f"checkpoint {folder} holds no training state that DeepSpeed can read")
        for group, kept in zip(self._engine.optimizer.param_groups, settings, strict=True):
            group.update(kept)
        if self.config.zero_stage:
            self._engine.optimizer.clip_grad = self.config.gradient_clip
        for weight, state in self._base_optimizer().state.items():
            if "step" in state:  # each its own: DeepSpeed may hand one tensor to all groups
                step = torch.as_tensor(state["step"], dtype=torch.float32)
                state["step"] = step.to(weight.device, copy=True)

    def load_whole(self, read: Callable[[str], dict[str, Tensor]]) -> None:
        """Load each parameter's "fp32", "exp_avg", "exp_avg_sq" and "step" by its name: stage 0."""
        state = self._base_optimizer().state
        for name, parameter in self.objective.named_parameters():
            tensor = read(name)
            parameter.data.copy_(tensor.pop("fp32").view(parameter.shape))
            state[parameter] = {
                key: value.to(parameter.device).view(parameter.shape if value.ndim else ())
                for key, value in tensor.items()
            }

    def load_buffers(self, saved: dict[str, Tensor]) -> None:
        """Load what `buffers` gave."""
        for name, buffer in self.buffers().items():
            buffer.copy_(saved[name])


def _adamw(groups: list[dict[str, Any]], config: Config) -> torch.optim.Optimizer:
    betas = (0.9, config.adam_beta2)
    return torch.optim.AdamW(groups, config.learning_rate, betas, config.adam_epsilon, fused=True)


def _as_it_is(state: Any) -> Any:
    return state


def _detach_all_but_loss(_module: nn.Module, _inputs: Any, terms: Terms) -> Terms:
    """Detach the other terms, since DeepSpeed hooks every output that has a gradient."""
    return {name: term if name == "loss" else term.detach() for name, term in terms.items()}


def parameter_groups(objective: nn.Module, config: Config) -> list[dict[str, Any]]:
    """Group parameters by learning rate ("ratio", of `learning_rate`) and by weight decay.

    Decay is for matrices and kernels only: not for biases, norms and single vectors.
    """
    prior = cast(Objective, objective).prior_parameter_names()
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in objective.named_parameters():
        ratio = config.prior_learning_rate_ratio if name in prior else 1.0
        decay = config.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((ratio, decay), []).append(parameter)
    return [
        {"params": parameters, "ratio": ratio, "weight_decay": decay}
        for (ratio, decay), parameters in groups.items()
    ]


def _check_nvme(config: Config) -> None:
    """Raise UserError where the disk to offload to, or the library that reads it, is missing."""
    if "nvme" not in (config.offload.optimizer, config.offload.parameters):
        return
    path = config.offload.nvme_path
    if path is None or not path.is_dir():
        raise UserError(f"offload.nvme_path is {path}, but there is no such folder on this node")
    from deepspeed.ops.op_builder import AsyncIOBuilder

    if not AsyncIOBuilder().is_compatible(verbose=False):
        raise UserError(
            "offload names nvme, but DeepSpeed's asynchronous file access needs the library "
            "libaio on every node (Debian: libaio-dev); install it, or offload to cpu"
        )


def _deepspeed(device: torch.device) -> Any:
    """Import deepspeed: quiet, compiling nothing, with a cache that no killed run can lock."""
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    if "TORCH_EXTENSIONS_DIR" not in os.environ:
        private = tempfile.mkdtemp(prefix="sdevid-extensions-")  # 0700, no foretellable name
        os.environ["TORCH_EXTENSIONS_DIR"] = private
        atexit.register(shutil.rmtree, private, ignore_errors=True)
    import deepspeed
    import deepspeed.ops

    logging.getLogger("DeepSpeed").setLevel(logging.INFO if shows("debug") else logging.ERROR)
    for name in ("reduce_scatter_tensor", "all_gather_into_tensor"):
        warnings.filterwarnings("ignore", rf".*{name}. is deprecated", FutureWarning)
    if device.type == "cpu":
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else it is compiled: 50 s
    return deepspeed
