"""Fine-tuning from a checkpoint and evaluating one, on a tiny world, in this process."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_job import WORDS, events_of, make_world, spec_of

from jobs.downstream.ask import Asker
from jobs.downstream.evaluate import run_evaluation
from jobs.downstream.generate import Shot, greedy, join_shots
from jobs.downstream.match import GroupLoss, group_loss, groups_of
from jobs.downstream.run import run_any
from jobs.downstream.start import find_checkpoint, finetune_job, first_job
from jobs.events import Evaluated, Failed, Finished, Started, Stopped
from jobs.launch import run_local
from jobs.load import load_checkpoint
from jobs.place import Place
from jobs.spec.downstream import EvaluateSpec, FinetuneSpec, job_from_json

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A pre-trained checkpoint with MoCa and questions about its pictures."""
    folder = tmp_path_factory.mktemp("world")
    base = make_world(folder)
    lines = [
        {"image": f"{i}.png", "question": f"{WORDS[i % 9]} " * (1 + i % 3), "answer": WORDS[i % 4]}
        for i in range(24)
    ]
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    base["questions"] = {
        "kind": "vqa", "path": str(folder / "questions.jsonl"), "prompt": "the {question} and",
    }  # fmt: skip
    questions = base.pop("questions")
    spec = spec_of(base, model={"moca": {"init_std": 0.05}})
    events_of(spec, folder / "pre")
    return {"base": base, "folder": folder, "questions": questions, "pre": folder / "pre"}


def finetune_of(world, **changes) -> FinetuneSpec:
    base, questions = world["base"], world["questions"]
    values = {
        "start": str(world["pre"]),
        "data": {"sources": {"q": questions}, "validation": questions, "validation_samples": 6},
        "optim": {"learning_rate": 1e-2, "samples": 16, "global_batch": 4},
        "score": {**base["score"], "every_samples": 16},
    }
    return FinetuneSpec.model_validate({**values, **changes})


def evaluate_of(world, **changes) -> EvaluateSpec:
    values = {
        "start": str(world["pre"]), "questions": world["questions"], "question_count": 10,
        "caption_count": 9, "match_choices": 3, "max_new_tokens": 4, "batch_size": 4,
    }  # fmt: skip
    return EvaluateSpec.model_validate({**values, **changes})


def run(spec, folder, **place):
    return list(run_any(spec, Place(folder=folder, **place)))


def evaluated(spec, folder) -> Evaluated:
    return next(e for e in run(spec, folder) if isinstance(e, Evaluated))


def test_a_finetune_begins_with_the_checkpoints_weights_and_unlocks_the_language_model(
    world, tmp_path
):
    events = run(finetune_of(world), tmp_path)
    started = next(e for e in events if isinstance(e, Started))
    assert set(started.trainable) == {"projector", "language", "moca"}
    assert isinstance(events[-1], Finished)
    before = load_file(find_checkpoint(str(world["pre"])) / "weights.safetensors")
    after = load_file(find_checkpoint(str(tmp_path)) / "weights.safetensors")
    assert set(before) < set(after)
    learnt = [name for name in before if name.startswith("projector.")]
    assert learnt and not any(torch.equal(before[name], after[name]) for name in learnt)
    assert any(name.startswith("language.") for name in after)


def test_with_a_learning_rate_of_next_to_nothing_the_weights_are_the_checkpoints(world, tmp_path):
    still = {"learning_rate": 1e-30, "samples": 4, "global_batch": 4}
    run(finetune_of(world, optim=still), tmp_path)
    before = load_checkpoint(find_checkpoint(str(world["pre"]))).model.state_dict()
    after = load_checkpoint(find_checkpoint(str(tmp_path))).model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_interrupted_finetune_goes_on_to_the_same_weights(world, tmp_path):
    spec = finetune_of(world)
    run(spec, tmp_path / "whole")
    polls = iter(range(100))
    stop = {"stop_requested": lambda: "asked" if next(polls) == 1 else None}
    assert isinstance(run(spec, tmp_path / "parts", **stop)[-1], Stopped)
    assert isinstance(run(spec, tmp_path / "parts")[-1], Finished)
    whole, parts = (
        load_file(find_checkpoint(str(tmp_path / name)) / "weights.safetensors")
        for name in ("whole", "parts")
    )
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_parts_frozen_in_the_finetune_come_from_the_pre_training(world, tmp_path):
    """A chain of jobs that each train another part: every link's weights are found."""
    run(finetune_of(world, trainable={"projector": False, "language_until": "all"}), tmp_path)
    chained = load_checkpoint(find_checkpoint(str(tmp_path)))
    assert first_job(chained.spec).start is None
    pre = load_checkpoint(find_checkpoint(str(world["pre"]))).model.state_dict()
    mine = chained.model.state_dict()
    projector = [name for name in pre if name.startswith("projector.")]
    assert projector and all(torch.equal(pre[name], mine[name]) for name in projector)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"start": "nowhere"}, "bad-data", "is no complete checkpoint"),
        ({"trainable": {"language_until": 9}}, "bad-configuration", "language_until"),
        ({"trainable": {"projector": False, "lora": {"targets": ["x"]}}}, "bad-conf", "lora"),
    ],
)
def test_a_bad_finetune_fails_with_one_line(world, tmp_path, changes, kind, message):
    (failed,) = run(finetune_of(world, **changes), tmp_path)
    assert isinstance(failed, Failed) and failed.kind.startswith(kind) and not failed.detail
    assert message in failed.reason


def test_kinds_come_back_from_json(world):
    for spec in (finetune_of(world), evaluate_of(world), finetune_job(finetune_of(world))):
        assert job_from_json(spec.model_dump(mode="json")) == spec


def prompts_of(loaded, count=3):
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(2 * count, 4, 16, generator=generator)
    return [
        [Shot(features=features[2 * i], ids=[7, 8, 9 + i]), Shot(features=features[2 * i + 1],
         ids=[8 + i, 12])]
        for i in range(count)
    ]  # fmt: skip


def test_decoding_with_kept_keys_gives_the_tokens_of_reading_all_anew(world):
    loaded = load_checkpoint(find_checkpoint(str(world["pre"])))
    model = loaded.model
    prompts = prompts_of(loaded)
    found = greedy(model, join_shots(model, prompts), 6, stop=-1)
    embed = model.language.get_input_embeddings()
    for prompt, tokens in zip(prompts, found, strict=True):
        assert len(tokens) == 6
        whole = join_shots(model, [prompt])
        for token in tokens:
            with torch.no_grad(), model.calibrated(whole):
                logits = model.language(inputs_embeds=whole.embeds, use_cache=False).logits
            assert int(logits[0, -1].argmax()) == token
            more = embed(torch.tensor([[token]]))
            unseen = torch.zeros(1, 1, dtype=torch.bool)
            whole = type(whole)(
                embeds=torch.cat([whole.embeds, more], dim=1).detach(),
                vision_mask=torch.cat([whole.vision_mask, unseen], dim=1),
                text_mask=torch.cat([whole.text_mask, ~unseen], dim=1),
            )


def test_decoding_ends_at_the_stop_token_of_each_prompt(world):
    loaded = load_checkpoint(find_checkpoint(str(world["pre"])))
    tokens = join_shots(loaded.model, prompts_of(loaded))
    free = greedy(loaded.model, tokens, 6, stop=-1)
    stop = free[0][2]
    stopped = greedy(loaded.model, tokens, 6, stop=stop)
    for row, full in zip(stopped, free, strict=True):
        assert row == (full[: full.index(stop)] if stop in full else full)


def test_answers_do_not_depend_on_which_questions_are_asked_together(world, tmp_path):
    shots = {"shots": [0, 2], "examples": world["questions"]}
    one = evaluated(evaluate_of(world, batch_size=1, **shots), tmp_path)
    many = evaluated(evaluate_of(world, batch_size=16, **shots), tmp_path)
    assert one.values.keys() == many.values.keys()
    assert one.values == pytest.approx(many.values, abs=1e-5)
    assert one.counts["exact-match@2"] == 10 and one.counts["gap"] == 9


def test_an_evaluation_tells_its_story_and_finetuning_on_the_questions_helps(world, tmp_path):
    longer = {"learning_rate": 1e-2, "samples": 240, "global_batch": 12}
    run(finetune_of(world, optim=longer), tmp_path / "ft")
    before = evaluated(evaluate_of(world), tmp_path)
    events = run(evaluate_of(world, start=str(tmp_path / "ft")), tmp_path)
    assert [e.event for e in events] == ["started", "evaluated", "finished"]
    assert events[0].trainable == {}  # by this it is known that a folder's scores are not its own
    after = events[1]
    assert isinstance(after, Evaluated)
    assert after.values["answer-loss@0"] < 0.7 * before.values["answer-loss@0"]
    assert after.values["exact-match@0"] >= before.values["exact-match@0"]
    assert 0 <= after.values["f1@0"] <= 1


def test_an_evaluation_leaves_when_asked_to(world, tmp_path):
    events = run(evaluate_of(world), tmp_path, stop_requested=lambda: "enough")
    assert isinstance(events[-1], Stopped) and events[-1].reason == "enough"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question_count": 99}, "use 24 or fewer"),
        ({"questions": "captions"}, "is a caption and no question"),
        ({"shots": [20]}, "the language model has 128: use fewer"),
        ({"captions": "alike"}, "9 samples have 2 different captions, too few"),
    ],
)
def test_a_bad_evaluation_fails_with_one_line(world, tmp_path, changes, message):
    if changes.get("questions") == "captions":
        changes = {"questions": world["base"]["data"]["validation"]}
    if changes.get("captions") == "alike":
        alike = world["folder"] / "alike.jsonl"
        lines = [{"image": f"{i}.png", "caption": WORDS[i % 2]} for i in range(9)]
        alike.write_text("\n".join(map(json.dumps, lines)))
        changes = {"captions": {"kind": "jsonl", "path": str(alike)}}
    spec = evaluate_of(world, examples=world["questions"], **changes)
    last = list(run_evaluation(spec, Place(folder=tmp_path)))[-1]
    assert isinstance(last, Failed) and last.kind in ("bad-configuration", "bad-data")
    assert message in last.reason and not last.detail


def test_shots_need_examples(world):
    with pytest.raises(ValueError, match="shots above 0 need examples"):
        evaluate_of(world, shots=[1])
    with pytest.raises(ValueError, match="shots"):
        evaluate_of(world, shots=[])


def test_captions_too_few_for_a_choice_are_refused_at_once(world):
    with pytest.raises(ValueError, match="caption_count: 2 captions make no group"):
        evaluate_of(world, caption_count=2)


def test_a_groups_losses_are_those_of_one_sample_at_a_time(world):
    loaded = load_checkpoint(find_checkpoint(str(world["pre"])))
    asker = Asker(evaluate_of(world), loaded, [])
    from jobs.data.build import open_source

    source = open_source(loaded.spec.data.validation)
    group = groups_of([source[i] for i in range(6)], 3)[0]
    losses = group_loss(loaded.model, group, loaded.tokenizer, loaded.image_processor, 64)
    for number, sample in enumerate(group):
        assert losses.right[number] == pytest.approx(asker._losses([sample])[0], abs=1e-5)


def test_matching_in_closed_form():
    """Picture 0 finds its caption; caption 1 is likely with any picture; picture 2 finds none."""
    group = GroupLoss(losses_nn=[[1.0, 1.5, 3.0], [2.0, 1.0, 2.5], [2.0, 1.2, 2.0]])
    assert group.right == [1.0, 1.0, 2.0]
    assert group.wrong == pytest.approx([2.0, 1.35, 2.75])
    assert group.captions_found == [1, 1, 0]
    assert group.pictures_found == [1, 1, 1]


@pytest.mark.slow
def test_two_ranks_share_an_evaluation_and_find_what_one_finds(world, tmp_path):
    spec = evaluate_of(world, shots=[0, 1], examples=world["questions"])
    told = []
    assert isinstance(run_local(spec, 2, tmp_path, told.append), Finished)
    alone = evaluated(spec, tmp_path)
    (both,) = (event for event in told if isinstance(event, Evaluated))
    assert both.counts == alone.counts
    assert both.values == pytest.approx(alone.values, abs=1e-5)
