"""MIR and the guard during training, shared by all ranks, without touching the training.

Legend: B samples, N tokens, D hidden size, V vision tokens, F feature width, M validation samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jobs.data.batch import Batch, join, pixels
from jobs.data.sample import Sample
from jobs.engine.group import device_of, sum_over_ranks
from jobs.evaluation import EvaluationSet, evaluation_set, pad_rows
from jobs.events import GuardReading
from jobs.features.cache import FeatureCache
from jobs.model.build import Built
from jobs.model.length import require_room
from jobs.model.llava import Llava
from jobs.place import Place
from jobs.spec import JobSpec
from mir.pairs import rank_batches
from mir.probe import LayerProbe
from mir.ranks import Layer, score_across_ranks
from mir.report import MirReport, Protocol


@dataclass
class _Pictures:
    """A batch of pictures that is encoded once if the encoder is frozen."""

    pixels: Tensor | None
    features: Tensor | None = None

    def encode(self, model: Llava, device: torch.device) -> Tensor:
        if self.features is not None:
            self.features = self.features.to(device)
            return self.features
        assert self.pixels is not None
        features_BVF = model.encode(self.pixels.to(device))
        if model.frozen_vision:
            self.features, self.pixels = features_BVF, None
        return features_BVF


@dataclass(frozen=True, kw_only=True)
class _PairBatch:
    numbers: list[int]
    counts: bool
    pictures: _Pictures
    text_ids: Tensor
    text_mask: Tensor


@dataclass(frozen=True, kw_only=True)
class _GuardBatch:
    numbers: list[int]
    counts: bool
    captions: Batch
    right: _Pictures
    wrong: _Pictures


class Scorer:
    """Scores one model again and again on the same pairs and validation samples.

    All ranks call `score` together and run the same number of forward passes (under ZeRO-3 each
    of them waits for all); a rank without work left repeats a batch that does not count.
    """

    def __init__(
        self, spec: JobSpec, built: Built, place: Place, features: FeatureCache | None = None
    ) -> None:
        """Read and tokenise the evaluation set. Raises ConfigError or DataError for bad ones.

        `skipped` are then the bad samples that were met in it.
        features: where the pictures' vision features come from, None to compute them here.
        """
        self._model, self._device = built.model, device_of(place)
        self._samples = spec.data.validation_samples
        whole = evaluation_set(spec, built.tokenizer, built.model.prefix_ids)
        self.skipped, self._prefix_ids = whole.skipped, whole.prefix_ids
        longest = max(map(len, whole.text_ids))
        require_room(built.model, "score.max_text_tokens", longest, len(whole.prefix_ids))
        self.protocol = Protocol(
            variant=spec.score.variant,
            pairs=spec.score.pairs,
            pairs_digest=whole.digest,
            template=spec.score.template,
            max_text_tokens=spec.score.max_text_tokens,
            layers=tuple(range(1, len(built.model.decoder_layers) + 1)),
        )
        prepare = _Preparation(spec, built, whole, features)
        size, ranks = spec.score.batch_size, place.world_size
        pair_shares = rank_batches(spec.score.pairs, size, place.rank, ranks)
        guard_shares = rank_batches(self._samples, size, place.rank, ranks)
        self._pairs = [prepare.pairs(*share) for share in pair_shares]
        self._guard = [prepare.guard(*share) for share in guard_shares]

    def score(self) -> tuple[MirReport, GuardReading]:
        """The model as it is now; the same on every rank.

        Random state, training modes and gradients are afterwards as they were before. Raises
        NonFiniteError or EmptyModalityError where MIR is not defined.
        """
        with _undisturbed(self._model):
            return self._mir(), self._read_guard()

    def _mir(self) -> MirReport:
        model = self._model
        store = "cpu" if self._device.type == "cuda" else None
        probe = LayerProbe(model.decoder_layers, model.final_norm, store=store)
        with probe:
            for batch in self._pairs:
                features = batch.pictures.encode(model, self._device)
                ids, mask = batch.text_ids.to(self._device), batch.text_mask.to(self._device)
                tokens = model.sequence(features, ids, mask, self._prefix_ids)
                vision_mask, text_mask = tokens.vision_mask, tokens.text_mask
                if not batch.counts:
                    vision_mask, text_mask = vision_mask & False, text_mask & False
                probe.positions(vision_mask, text_mask, batch.numbers)
                model.run_decoder(tokens)

        def to_device(layer: Layer) -> Layer:
            return layer[0].to(self._device), layer[1].to(self._device)

        # Not a loop over layers: its variables would keep a layer while the next is joined.
        return score_across_ranks(
            map(to_device, probe.layers()),
            probe.pairs(),
            variant=self.protocol.variant,
            protocol=self.protocol,
        )

    def _read_guard(self) -> GuardReading:
        losses_2M = torch.zeros(2, self._samples, dtype=torch.float64, device=self._device)
        for batch in self._guard:
            captions = batch.captions.to(self._device)
            for row, pictures in enumerate((batch.right, batch.wrong)):
                features = pictures.encode(self._model, self._device)
                loss_B = self._model.per_sample_loss(captions, features)
                if batch.counts:
                    losses_2M[row, batch.numbers] = loss_B.double()
        right_M, wrong_M = sum_over_ranks(losses_2M).cpu()
        gap_M = wrong_M - right_M
        return GuardReading(
            validation_loss=float(right_M.mean()),
            wrong_loss=float(wrong_M.mean()),
            gap=float(gap_M.mean()),
            gap_error=float(gap_M.std() / len(gap_M) ** 0.5),
        )


class _Preparation:
    """Turns the evaluation set into this rank's batches."""

    def __init__(
        self, spec: JobSpec, built: Built, whole: EvaluationSet, features: FeatureCache | None
    ) -> None:
        self._built, self._whole, self._features = built, whole, features
        self._max_tokens = spec.data.max_caption_tokens

    def pairs(self, numbers: list[int], counts: bool) -> _PairBatch:
        ids, mask = pad_rows([self._whole.text_ids[n] for n in numbers])
        return _PairBatch(
            numbers=numbers,
            counts=counts,
            pictures=self._pictures(self._prepared([self._whole.pictures[n] for n in numbers])),
            text_ids=ids,
            text_mask=mask,
        )

    def guard(self, numbers: list[int], counts: bool) -> _GuardBatch:
        samples = self._whole.validation
        # A rotation by half the samples: no sample keeps its picture, whatever their number.
        others = [samples[(n + len(samples) // 2) % len(samples)] for n in numbers]
        own = [samples[n] for n in numbers]
        texts = [sample.turns for sample in own]
        pictures = self._prepared(own)
        captions = join(pictures, texts, self._built.tokenizer, self._max_tokens)
        return _GuardBatch(
            numbers=numbers,
            counts=counts,
            captions=captions,
            right=self._pictures(pictures),
            wrong=self._pictures(self._prepared(others)),
        )

    def _prepared(self, samples: Sequence[Sample]) -> list[Tensor]:
        processor = self._built.image_processor
        prepare = self._features or (lambda image: pixels(image, processor))
        return [prepare(sample.image) for sample in samples]

    def _pictures(self, prepared: Sequence[Tensor]) -> _Pictures:
        stacked = torch.stack(list(prepared))
        return _Pictures(stacked) if self._features is None else _Pictures(None, stacked)


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards modes and random state are as before."""
    modes = {module: module.training for module in model.modules()}
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    model.eval()
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
