"""What comes after pre-training, as values: fine-tuning a checkpoint, and evaluating one."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from jobs.spec.base import Frozen, PositiveInt
from jobs.spec.data import DataSpec, SourceSpec
from jobs.spec.job import JobSpec
from jobs.spec.model import ModelSpec, Shorthand
from jobs.spec.score import ScoreSpec
from jobs.spec.trainable import TrainableSpec
from jobs.spec.training import CheckpointSpec, DeepspeedSpec, OptimSpec

Count = Annotated[int, Field(ge=0)]


class Finetune(Frozen):
    """How a pre-trained model is fine-tuned, whichever it is.

    trainable: which parts learn, as in a pre-training job; MoCa learns on where it is attached.
    data: questions with answers (kinds 'questions' and 'vqa'), captions, or both.
    """

    trainable: Shorthand | TrainableSpec = "projector+language"
    data: DataSpec
    optim: OptimSpec = OptimSpec()
    deepspeed: DeepspeedSpec = DeepspeedSpec()
    score: ScoreSpec = ScoreSpec()
    checkpoint: CheckpointSpec = CheckpointSpec(every_samples=None, keep=1)
    seed: int = 0

    def job(self, start: str, made: JobSpec) -> JobSpec:
        """The training job: the model of the job that made the checkpoint `start`, from there on.

        Raises pydantic's ValidationError where `trainable` does not suit that model.
        """
        model = {**made.model.model_dump(), "trainable": self.model_dump()["trainable"]}
        return JobSpec(
            model=ModelSpec.model_validate(model),
            data=self.data,
            optim=self.optim,
            deepspeed=self.deepspeed,
            score=self.score,
            checkpoint=self.checkpoint,
            seed=self.seed,
            start=start,
        )


class Evaluation(Frozen):
    """What a model is asked, whichever it is.

    questions: a source of kind 'questions' or 'vqa'. question_count: how many of them are asked.
    shots: for each entry the questions are asked once, with so many solved examples before each.
    examples: where solved examples come from; needed for shots above 0.
    separator: what stands between solved examples, and ends an answer.
    captions: source of the captioned pictures for losses and matching, None takes the validation
        source of the pre-training job behind the checkpoint.
    match_choices: captions, or pictures, to choose from, the right one among them.
    max_new_tokens: longest answer; answers are greedy, so the same model answers alike.
    max_bad_fraction: share of bad samples of a source beyond which the job ends; of 1,000 at least.
    """

    questions: SourceSpec
    question_count: PositiveInt = 256
    shots: Annotated[tuple[Count, ...], Field(min_length=1)] = (0,)
    examples: SourceSpec | None = None
    separator: Annotated[str, Field(min_length=1)] = "\n"
    captions: SourceSpec | None = None
    caption_count: Annotated[int, Field(ge=2)] = 64
    match_choices: Annotated[int, Field(ge=2)] = 4
    max_new_tokens: PositiveInt = 8
    batch_size: PositiveInt = 16
    max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01
    precision: Literal["fp32", "bf16"] = "fp32"

    @model_validator(mode="after")
    def _shots_have_examples(self) -> Evaluation:
        if max(self.shots, default=0) > 0 and self.examples is None:
            raise ValueError("shots above 0 need examples: name a source of solved questions")
        return self

    @model_validator(mode="after")
    def _captions_make_groups(self) -> Evaluation:
        if self.caption_count < self.match_choices:
            raise ValueError(
                f"caption_count: {self.caption_count} captions make no group of match_choices "
                f"{self.match_choices}: take more captions, or fewer choices"
            )
        return self


class FinetuneSpec(Finetune):
    """A fine-tuning job. start: a checkpoint, or a folder whose newest checkpoint is taken."""

    kind: Literal["finetune"] = "finetune"
    start: str


class EvaluateSpec(Evaluation):
    """An evaluation job. start: a checkpoint, or a folder whose newest checkpoint is taken."""

    kind: Literal["evaluate"] = "evaluate"
    start: str


class DownstreamSpec(Frozen):
    """One fixed recipe for what comes after pre-training, the same for every checkpoint.

    finetune: None evaluates the pre-trained checkpoint as it is (zero- and few-shot).
    """

    finetune: Finetune | None = None
    evaluate: Evaluation


AnyJob = JobSpec | FinetuneSpec | EvaluateSpec
KINDS: dict[str, type[FinetuneSpec] | type[EvaluateSpec]] = {
    "finetune": FinetuneSpec,
    "evaluate": EvaluateSpec,
}


def job_from_json(data: dict[str, Any]) -> AnyJob:
    """Restore a job of any kind; one without a kind pre-trains."""
    return KINDS.get(str(data.get("kind")), JobSpec).model_validate(data)
