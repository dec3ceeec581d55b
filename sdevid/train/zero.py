"""DeepSpeed's settings, derived from ours: ZeRO's stage, its buckets, what is offloaded."""

from __future__ import annotations

from typing import Any

import torch

from sdevid.config import Config
from sdevid.data.stream import micro_batch_size

_MOST_IN_A_BUCKET = 25_000_000  # elements reduced at once: 100 MB of float32


def deepspeed_settings(config: Config, world_size: int, parameters: int) -> dict[str, Any]:
    """Derive DeepSpeed's config from ours; changes between its versions are named."""
    micro = micro_batch_size(config, world_size)
    bucket = min(_MOST_IN_A_BUCKET, parameters + parameters % 2)  # DeepSpeed wants it even
    return {
        "train_batch_size": config.batch_size,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": config.batch_size // (micro * world_size),
        "gradient_clipping": config.gradient_clip if config.zero_stage else 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {
            "stage": config.zero_stage,
            "contiguous_gradients": True,
            "overlap_comm": config.zero_stage == 3,
            "reduce_scatter": True,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
            "round_robin_gradients": False,
            "parameter_alignment": False,
            "sub_group_size": 1_000_000_000,
            "stage3_prefetch_bucket_size": bucket,
            "stage3_param_persistence_threshold": 100_000,
            "stage3_max_live_parameters": 1_000_000_000,
            "stage3_max_reuse_distance": 1_000_000_000,
            **_offload_settings(config),
        },
        "torch_autocast": {"enabled": config.precision == "bf16", "dtype": "bfloat16"},
        "bf16": {"enabled": False},
        "fp16": {"enabled": False},
        "prescale_gradients": False,
        "gradient_predivide_factor": 1.0,
        "wall_clock_breakdown": False,
        "memory_breakdown": False,
        "dump_state": False,
        "steps_per_print": None,
        "timers": {"throughput": {"enabled": False}},
        "checkpoint": {"tag_validation": "Ignore", "load_universal": False},
    }


def _offload_settings(config: Config) -> dict[str, Any]:
    """Build the settings of what goes to the host's memory or disk; empty where nothing does."""
    offload, settings = config.offload, {}
    path = {"nvme_path": str(offload.nvme_path)} if offload.nvme_path else {}
    pinned = {"pin_memory": torch.cuda.is_available()}
    if offload.optimizer != "none":
        settings["offload_optimizer"] = {"device": offload.optimizer} | path | pinned
    if offload.parameters != "none":
        settings["offload_param"] = {"device": offload.parameters} | path | pinned
    return settings
