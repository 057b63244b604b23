"""The sides of the comparison in bench_jobs: each takes steps and says how long they took.

A step begins where the one before it ended. So it counts what a side needs to get its batch, which
all get from torch's loader, rows joined in this process: the Trainer fetches a batch, and moves it
to its device, before it says that a step begins.
"""

from __future__ import annotations

import copy
import itertools
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from jobs.data.batch import Batch
from jobs.engine.deepspeed_engine import Engine
from jobs.engine.group import device_of
from jobs.export.llava import as_llava
from jobs.load import Loaded
from jobs.model.build import build_model
from jobs.model.llava import Llava
from jobs.place import Place
from jobs.spec import JobSpec


def clock(device: torch.device) -> float:
    """Seconds: the device's once it has done everything, or this thread's on the CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.thread_time()


def timed(
    batches: list[Batch], device: torch.device, step: Callable[[Batch], object]
) -> list[float]:
    """Seconds of each step, its batch fetched as the Trainer fetches it."""
    seconds, began = [], clock(device)
    loader = torch.utils.data.DataLoader(
        _Rows(batches), len(batches[0]), collate_fn=_joined, pin_memory=device.type == "cuda"
    )
    for columns in loader:
        step(Batch(**columns))
        ended = clock(device)
        seconds.append(ended - began)
        began = ended
    return seconds


class Plain:
    """The loop that one would write in an afternoon: torch's AdamW, clipping, nothing else."""

    def __init__(self, spec: JobSpec, model: Llava, place: Place) -> None:
        self._spec, self._device = spec, device_of(place)
        self._low = spec.deepspeed.precision == "bf16"
        self._model = model.to(self._device)
        self._learns = [p for p in model.parameters() if p.requires_grad]
        if self._low:  # bf16 weights with float32 masters, as DeepSpeed keeps them
            self._masters = [p.detach().float().clone() for p in self._learns]
            self._model = model.bfloat16()
            self._learns = [p for p in model.parameters() if p.requires_grad]
        else:
            self._masters = self._learns
        self._adamw = torch.optim.AdamW(
            self._masters, lr=spec.optim.learning_rate, weight_decay=0.0,
            fused=self._device.type == "cuda",
        )  # fmt: skip

    def steps(self, batches: list[Batch]) -> list[float]:
        """Seconds of each step."""
        return timed(batches, self._device, self._step)

    def _step(self, batch: Batch) -> None:
        self._model.train()
        loss = self._model(batch.to(self._device))
        loss.backward()
        if self._low:
            for master, parameter in zip(self._masters, self._learns, strict=True):
                master.grad = parameter.grad.float() if parameter.grad is not None else None
        nn.utils.clip_grad_norm_(self._masters, self._spec.optim.gradient_clip)
        self._adamw.step()
        if self._low:
            with torch.no_grad():
                for master, parameter in zip(self._masters, self._learns, strict=True):
                    parameter.copy_(master)
        for parameter in {*self._learns, *self._masters}:
            parameter.grad = None
        float(loss.detach())


class Ours:
    """The engine of a job: what a run calls for every batch."""

    def __init__(self, spec: JobSpec, model: Llava, place: Place) -> None:
        self.engine, self._device, self._done = Engine(model, spec, place), device_of(place), 0

    def steps(self, batches: list[Batch]) -> list[float]:
        """Seconds of each step."""
        return timed(batches, self._device, self._step)

    def _step(self, batch: Batch) -> None:
        self.engine.step(batch, self._done)
        self._done += 1


class Kept(Ours):
    """The same with vision features that were computed beforehand, as a job's cache keeps them."""

    def __init__(self, spec: JobSpec, model: Llava, place: Place) -> None:
        super().__init__(spec, model, place)
        self._model, self._features = model, list[Batch]()

    def steps(self, batches: list[Batch]) -> list[float]:
        """Seconds of each step, the encoder's not among them."""
        if not self._features:
            for batch in batches:
                here = batch.to(self._device)
                kept = {**vars(here), "pixel_values": self._model.encode(here.pixel_values)}
                self._features.append(Batch(**kept).to("cpu"))
        return super().steps(self._features)


class _AsTrainerWants(nn.Module):
    """transformers' Trainer passes columns and takes the loss from a dictionary."""

    def __init__(self, model: Llava) -> None:
        super().__init__()
        self.model = model

    def forward(self, **columns: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.model(Batch(**columns))}


class _TheirLlava(nn.Module):
    """The same weights in transformers' own Llava, with its own loss over its own logits."""

    def __init__(self, spec: JobSpec, model: Llava) -> None:
        super().__init__()
        built = build_model(spec.model, 0)
        loaded = Loaded(
            model=model, tokenizer=built.tokenizer, image_processor=built.image_processor,
            spec=spec, samples=0,
        )  # fmt: skip
        self.model, _ = as_llava(loaded)
        self._prefix = model.prefix_ids

    def forward(
        self, pixel_values: torch.Tensor, caption_ids: torch.Tensor, caption_mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        count, config = len(caption_ids), self.model.config
        image = caption_ids.new_full((count, config.image_seq_length), config.image_token_index)
        before = caption_ids.new_tensor(self._prefix).expand(count, -1)
        ids = torch.cat([before, image, caption_ids], dim=1)
        learnt = caption_ids.masked_fill(~caption_mask, -100)
        labels = torch.cat([torch.full_like(before, -100), torch.full_like(image, -100), learnt], 1)
        out = self.model(input_ids=ids, pixel_values=pixel_values, labels=labels, use_cache=False)
        return {"loss": out.loss}


class Peer:
    """transformers' Trainer with DeepSpeed on the same dictionary, training our module."""

    def _wrapped(self, spec: JobSpec, model: Llava) -> nn.Module:
        return _AsTrainerWants(model)

    def __init__(self, spec: JobSpec, model: Llava, place: Place) -> None:
        from jobs.engine.config import deepspeed_config

        self._spec, self._place, self._device = spec, place, device_of(place)
        self._model = self._wrapped(spec, model)
        self._config = deepspeed_config(spec, place.world_size, place.device)
        self._config["zero_allow_untested_optimizer"] = True
        # None means never to DeepSpeed; accelerate insists on a number.
        self._config["steps_per_print"] = 10**9

    def steps(self, batches: list[Batch]) -> list[float]:
        """Seconds of each step, without what the Trainer does before the first.

        A copy each time: DeepSpeed leaves hooks on the parameters of a model that it has trained.
        """
        import transformers

        ends: list[float] = []
        device = self._device

        class Clock(transformers.TrainerCallback):
            def on_epoch_begin(self, *_: Any, **__: Any) -> None:
                ends.append(clock(device))

            def on_step_end(self, *_: Any, **__: Any) -> None:
                ends.append(clock(device))

        with tempfile.TemporaryDirectory() as folder:
            arguments = transformers.TrainingArguments(
                output_dir=folder, max_steps=len(batches), report_to=[], save_strategy="no",
                logging_strategy="no", remove_unused_columns=False, disable_tqdm=True,
                per_device_train_batch_size=len(batches[0]), deepspeed=self._config,
                learning_rate=self._spec.optim.learning_rate, lr_scheduler_type="constant",
                weight_decay=0.0, max_grad_norm=self._spec.optim.gradient_clip,
                bf16=self._spec.deepspeed.precision == "bf16", dataloader_num_workers=0,
                use_cpu=device.type == "cpu", optim="adamw_torch",
                train_sampling_strategy="sequential",
            )  # fmt: skip
            trainer = transformers.Trainer(
                model=copy.deepcopy(self._model), args=arguments, data_collator=_joined,
                # One more than it trains on, since it fetches a step ahead: each step fetches one.
                train_dataset=_Rows([*batches, batches[0]]), callbacks=[Clock()],
            )  # fmt: skip
            trainer.train()
        return [ended - began for began, ended in itertools.pairwise(ends)]


class PeerLlava(Peer):
    """The same with transformers' own Llava, which is what one would train with the Trainer."""

    def _wrapped(self, spec: JobSpec, model: Llava) -> nn.Module:
        return _TheirLlava(spec, model)


class _Rows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """The samples of the batches, one by one."""

    def __init__(self, batches: list[Batch]) -> None:
        self._batches, self._size = batches, len(batches[0])

    def __len__(self) -> int:
        return len(self._batches) * self._size

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        batch, row = self._batches[index // self._size], index % self._size
        return {
            "pixel_values": batch.pixel_values[row],
            "caption_ids": batch.caption_ids[row],
            "caption_mask": batch.caption_mask[row],
        }


def _joined(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


SIDES = {
    "plain loop": Plain,
    "mirsweep": Ours,
    "mirsweep, features kept": Kept,
    "Trainer + DeepSpeed": Peer,
    "Trainer + DeepSpeed, their Llava": PeerLlava,
}
