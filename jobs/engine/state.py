"""Weights and AdamW moments in full, whatever the ZeRO stage and the number of ranks.

DeepSpeed's own checkpoints are tied to both. These accessors are not: they give and take whole
float32 tensors, so a checkpoint of one gang can be resumed by another.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

MOMENTS = ("exp_avg", "exp_avg_sq")


class FullState:
    """Reads and writes master weights and moments of a DeepSpeed engine that holds a torch AdamW.

    Every call of `get` and `set` is made by all ranks together, parameter by parameter in the same
    order. On creation the moments are set to zero and the step to 0: some ZeRO stages have taken
    an empty step by then, others have no moments yet.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._stage = int(engine.zero_optimization_stage())
        self._masters = _plain_masters(engine) if self._stage == 0 else {}
        self.set_step(0)

    def set_step(self, step: int) -> None:
        """Set AdamW's step count and clear its moments."""
        adamw = self._engine.basic_optimizer
        fused = bool(adamw.defaults.get("fused"))
        for master in self._flat_masters():
            adamw.state[master] = {
                "step": torch.tensor(float(step), device=master.device if fused else "cpu"),
                **{key: torch.zeros_like(master.data) for key in MOMENTS},
            }
        if self._stage in (1, 2):
            # DeepSpeed links parameters to their moments after the first step only.
            self._engine.optimizer._hp_optimizer_states_linked = False
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()

    def get(self, parameter: nn.Parameter, key: str | None = None) -> Tensor:
        """A whole float32 master weight (key None) or moment, on every rank."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        if self._stage == 0:
            return self._plain(parameter, key).detach()
        full: Tensor | None = (
            safe_get_full_fp32_param(parameter)
            if key is None
            else safe_get_full_optimizer_state(parameter, key)
        )
        assert full is not None, "only trainable parameters have a master weight"
        return full.detach()

    def set(self, parameter: nn.Parameter, value: Tensor, key: str | None = None) -> None:
        """Write a whole float32 master weight (key None) or moment.

        At stages above 0 the low-precision weight follows at the next step, so weights are also
        loaded into the model before the engine is made.
        """
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        if self._stage == 0:
            master = self._plain(parameter, key)
            with torch.no_grad():
                master.copy_(value)
        elif self._stage == 3:
            self._set_partition(parameter, value, key)
        elif key is None:
            safe_set_full_fp32_param(parameter, value)
        else:
            safe_set_full_optimizer_state(parameter, value, key)

    def _set_partition(self, parameter: Any, value: Tensor, key: str | None) -> None:
        """ZeRO-3 pads the last rank's part; DeepSpeed's own full setter fails on such sizes."""
        from deepspeed.utils import safe_set_local_fp32_param, safe_set_local_optimizer_state

        size, ranks = parameter.ds_tensor.numel(), dist.get_world_size()
        padded = torch.zeros(size * ranks, dtype=value.dtype, device=parameter.ds_tensor.device)
        padded[: value.numel()] = value.flatten()
        mine = padded.narrow(0, size * dist.get_rank(), size)
        if key is None:
            safe_set_local_fp32_param(parameter, mine)
        else:
            safe_set_local_optimizer_state(parameter, mine, key)

    def _plain(self, parameter: nn.Parameter, key: str | None) -> Tensor:
        master = self._masters[parameter]
        if key is None:
            return master
        moment: Tensor = self._engine.basic_optimizer.state[master][key]
        return moment

    def _flat_masters(self) -> list[Tensor]:
        if self._stage == 3:
            return list(self._engine.optimizer.fp32_partitioned_groups_flat)
        groups = self._engine.basic_optimizer.param_groups
        return [master for group in groups for master in group["params"]]


def _plain_masters(engine: Any) -> dict[Tensor, Tensor]:
    """Stage 0: the master of each parameter, which is the parameter itself in float32."""
    if engine.optimizer is engine.basic_optimizer:
        groups = engine.basic_optimizer.param_groups
        return {p: p for group in groups for p in group["params"]}
    low, full = engine.optimizer.fp16_groups, engine.optimizer.fp32_groups
    return {
        p: master
        for low_group, full_group in zip(low, full, strict=True)
        for p, master in zip(low_group, full_group, strict=True)
    }
