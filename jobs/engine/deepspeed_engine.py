"""One training step after another through DeepSpeed."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from jobs.data.batch import Batch
from jobs.engine.activations import checkpoint_activations
from jobs.engine.config import deepspeed_config
from jobs.engine.group import device_of, gather_objects, join, sum_over_ranks
from jobs.engine.loss_scale import LossScale
from jobs.engine.report import require_obeyed
from jobs.engine.schedule import rate_factor
from jobs.engine.state import MOMENTS, FullState
from jobs.model.llava import Llava
from jobs.place import Place
from jobs.spec import JobSpec
from mir.errors import DivergedError


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """One optimizer step, the same on every rank.

    loss: mean over the global batch, before the step. grad_norm: before clipping; of the step
    before where fp16 gradients overflowed in this one. overflows: steps of the run so far that
    changed no weight because of that. stop: why all ranks leave after this step, None to go on.
    bad: sum over ranks of what each gave as its bad samples.
    """

    loss: float
    grad_norm: float
    learning_rate: float
    stop: str | None
    overflows: int = 0
    bad: int = 0


class Engine:
    """A model under DeepSpeed, with AdamW and our own learning-rate schedule.

    weights: trained weights by parameter name to start from, None for the model's own.
    All ranks make the same calls in the same order.
    """

    def __init__(
        self, model: Llava, spec: JobSpec, place: Place, weights: dict[str, Tensor] | None = None
    ) -> None:
        join(place)
        self._spec, self._place = spec, place
        config = deepspeed_config(spec, place.world_size, place.device)
        if weights:
            model.load_state_dict(weights, strict=False)
        if spec.deepspeed.activation_checkpointing:
            checkpoint_activations(model)
        # Names before DeepSpeed touches the parameters; the order is that of the checkpoint.
        self._trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._groups = model.parameter_groups()
        self._deepspeed, *_ = _deepspeed().initialize(
            model=model, optimizer=self._adamw(), config=config
        )
        require_obeyed(config, self._deepspeed)
        if self._plain_optimizer:
            # DeepSpeed clips parameter by parameter there, over a walk through all modules, and
            # keeps no norm; `_clip_plain` takes one norm for both.
            self._deepspeed.clip_fp32_gradients = _nothing
        self._state = FullState(self._deepspeed)
        self._scale = LossScale(self._deepspeed)
        self._updates, self._grad_norm = 0, 0.0
        self.trainable = model.trainable_counts()
        self.device = device_of(place)

    def step(self, share: Batch, index: int, bad: int = 0) -> StepResult:
        """Train on this rank's share of global batch number `index` (0-based).

        bad: bad samples that this rank knows of; their sum goes with what ranks exchange anyway.
        Polls `place.stop_requested`; the ranks agree, so that none leaves alone. A step that fp16
        leaves out has still seen its samples, by which the schedule goes.
        Raises DivergedError where fp16 gradients overflow at any loss scale.
        """
        if not self._deepspeed.module.training:  # it visits every module, which small models feel
            self._deepspeed.train()
        self._set_rates(index)
        micro = self._deepspeed.train_micro_batch_size_per_gpu()
        parts = self._deepspeed.gradient_accumulation_steps()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for part, batch in enumerate(_split(share.to(self.device), micro), start=1):
            loss = self._deepspeed(batch)
            self._scale.multiply(loss, parts)
            self._deepspeed.backward(loss)
            total += loss.detach()
            if part == parts and self._plain_optimizer:
                self._grad_norm = self._clip_plain()
            self._deepspeed.step()
        self._count(index)
        loss_value, all_bad, stop = self._agree(total / parts, bad)
        rate = self._spec.optim.learning_rate * rate_factor(index, self._spec.optim)
        return StepResult(
            loss=loss_value,
            grad_norm=self._grad_norm,
            learning_rate=rate,
            stop=stop,
            overflows=index + 1 - self._updates,
            bad=all_bad,
        )

    def gather(self) -> dict[str, Tensor]:
        """Master weights (`weight/<name>`) and moments (`exp_avg/<name>`, ...), float32 on CPU.

        With them fp16's loss scale. All ranks take part; only rank 0 keeps the tensors, the others
        get an empty dictionary.
        """
        kept: dict[str, Tensor] = {}
        for name, parameter in self._trained.items():
            for key in (None, *MOMENTS):
                full = self._state.get(parameter, key)
                if self._place.rank == 0:
                    kept[f"{key or 'weight'}/{name}"] = full.to("cpu", copy=True).contiguous()
        if self._place.rank == 0:
            kept |= self._scale.state(self._updates)
        return kept

    def restore(self, tensors: dict[str, Tensor], step: int) -> None:
        """Take over what `gather` gave after `step` steps, at any stage and number of ranks."""
        self._updates = self._scale.restore(tensors, step)
        self._state.set_step(self._updates)
        for name, parameter in self._trained.items():
            for key in (None, *MOMENTS):
                value = tensors[f"{key or 'weight'}/{name}"].to(self.device)
                self._state.set(parameter, value, key)

    def close(self) -> None:
        """Let go of DeepSpeed's buffers; the process group stays."""
        self._deepspeed.destroy()

    @property
    def _plain_optimizer(self) -> bool:
        """Stage 0 in float32: the optimizer is torch's own, and DeepSpeed keeps no norm."""
        return self._deepspeed.optimizer is self._deepspeed.basic_optimizer

    def _count(self, index: int) -> None:
        """AdamW counts the steps that changed weights, for its bias correction."""
        if self._scale.exhausted:
            raise DivergedError(
                f"fp16 gradients overflow at any loss scale at step {index + 1}: use bf16, or a "
                "lower learning rate"
            )
        if self._scale.overflowed:
            return
        self._updates += 1
        if not self._plain_optimizer:
            self._grad_norm = self._scale.norm(float(self._deepspeed.get_global_grad_norm()))

    def _clip_plain(self) -> float:
        """Clip the gradients, which all ranks share by now; their norm before that."""
        learnt = [p for p in self._trained.values() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in learnt if p.grad is not None])
        if self._spec.optim.gradient_clip > 0:
            torch.nn.utils.clip_grads_with_norm_(learnt, self._spec.optim.gradient_clip, norm)
        return float(norm)

    def _agree(self, loss: Tensor, bad: int) -> tuple[float, int, str | None]:
        """Mean loss, all bad samples, and why to stop; who leaves alone deadlocks the others."""
        reason = self._place.stop_requested()
        counts = (torch.full_like(loss, count) for count in (reason is not None, bad))
        loss_sum, asked, all_bad = sum_over_ranks(torch.stack([loss, *counts])).tolist()
        stop = None
        if asked > 0:
            stop = next(r for r in gather_objects(reason) if r is not None)
        return loss_sum / self._place.world_size, int(all_bad), stop

    def _adamw(self) -> torch.optim.AdamW:
        optim = self._spec.optim
        rate = self._spec.model.learning_rate
        groups = [
            {"params": parameters, "full_rate": rate(part, optim.learning_rate), **decay}
            for part, together in self._groups.items()
            for decay, parameters in _decayed(part, together, optim.weight_decay)
        ]
        # Rate 0: DeepSpeed takes an empty step while it sets up, which must not decay weights.
        return torch.optim.AdamW(
            groups,
            lr=0.0,
            betas=(optim.beta1, optim.beta2),
            weight_decay=0.0,
            fused=self._place.device == "cuda",
        )

    def _set_rates(self, index: int) -> None:
        factor = rate_factor(index, self._spec.optim)
        for group in self._deepspeed.basic_optimizer.param_groups:
            group["lr"] = group["full_rate"] * factor


def _decayed(
    part: str, parameters: list[nn.Parameter], decay: float
) -> Iterator[tuple[dict[str, float], list[nn.Parameter]]]:
    """A part's parameters by what they decay with: matrices alone do. Norms, biases and MoCa's
    calibrations, which are 1 where nothing has been learnt, do not."""
    matrices = [p for p in parameters if decay and part != "moca" and p.ndim > 1]
    kept = set(matrices)
    rest = [p for p in parameters if p not in kept]
    for some, share in ((matrices, decay), (rest, 0.0)):
        if some:
            yield {"weight_decay": share}, some


def _nothing() -> None:
    pass


def _split(share: Batch, micro: int) -> Iterator[Batch]:
    for start in range(0, len(share), micro):
        part = slice(start, start + micro)
        yield Batch(
            pixel_values=share.pixel_values[part],
            caption_ids=share.caption_ids[part],
            caption_mask=share.caption_mask[part],
        )


def _deepspeed() -> Any:
    """Import DeepSpeed without what slows it down.

    Its autotuner imports mlflow if it can, which takes a second and is not used here; its
    shared-memory operator is compiled on first use, which takes half a minute and a compiler; and
    ZeRO imports the Muon optimizer, which decorates its functions for torch's compiler, whose
    import takes 1.6 s and 110 MB a process.
    """
    if "mlflow" not in sys.modules:
        sys.modules["mlflow"] = None  # type: ignore[assignment]  # import then raises ImportError
        try:
            deepspeed = importlib.import_module("deepspeed")
        finally:
            del sys.modules["mlflow"]
    else:
        deepspeed = importlib.import_module("deepspeed")
    # ZeRO-3 calls collectives by names that torch 2.13 has given new ones.
    warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    with suppress(ImportError, AttributeError):  # a version that has them elsewhere is only slower
        _import_muon()
    return deepspeed


def _import_muon() -> None:
    """Import DeepSpeed's Muon optimizer with its functions as they are written."""
    compiler: Any = importlib.import_module("deepspeed.runtime.compiler")
    decorator, compiler.compile = compiler.compile, lambda: compiler.dummy_decorator
    try:
        importlib.import_module("deepspeed.runtime.zero.muon.original_muon")
    finally:
        compiler.compile = decorator
