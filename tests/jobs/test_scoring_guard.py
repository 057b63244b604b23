"""What a job is scored on, and what the guard reads."""

import pytest
import torch
from tiny_job import make_world, spec_of

from jobs.engine.group import join
from jobs.evaluation import evaluation_set, pad_rows
from jobs.model.build import build_model
from jobs.place import Place
from jobs.scoring import Scorer
from mir.errors import ConfigError


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def place(tmp_path):
    place = Place(folder=tmp_path)
    join(place)
    return place


def built_for(spec):
    return build_model(spec.model, spec.seed)


def whole(spec):
    built = built_for(spec)
    return evaluation_set(spec, built.tokenizer, built.model.prefix_ids), built


def test_plain_pairs_are_prefix_picture_and_cut_text(base):
    found, built = whole(spec_of(base, score={"max_text_tokens": 4}))
    assert len(found.pictures) == len(found.text_ids) == 6
    assert found.prefix_ids == (built.tokenizer.bos_token_id,)
    assert all(len(ids) == 4 for ids in found.text_ids)


def test_chat_pairs_put_the_picture_into_the_users_turn(base):
    found, built = whole(spec_of(base, score={"template": "chat", "max_text_tokens": 4}))
    assert built.tokenizer.convert_ids_to_tokens(found.prefix_ids) == ["<user>"]
    for ids in found.text_ids:
        tokens = built.tokenizer.convert_ids_to_tokens(ids)
        assert tokens[-1] == "<bot>"
        assert len(tokens) == 5


def test_the_digest_follows_the_pairs_and_nothing_else(base):
    digests = [
        whole(spec_of(base, **changes))[0].digest
        for changes in ({}, {"seed": 9, "optim": {"samples": 8}}, {"score": {"pairs": 5}})
    ]
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


def test_a_tokenizer_without_a_chat_template_is_refused(base):
    spec = spec_of(base, score={"template": "chat"})
    built = built_for(spec)
    built.tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="use 'plain'"):
        evaluation_set(spec, built.tokenizer, ())


def test_too_few_texts_are_named(base, tmp_path):
    (tmp_path / "few.txt").write_text("one\ntwo\n")
    spec = spec_of(base, score={"texts": {"source": str(tmp_path / "few.txt")}})
    with pytest.raises(ConfigError, match=r"score.pairs: 6 .* only 2 texts"):
        whole(spec)


def test_rows_are_padded_on_the_right():
    ids, mask = pad_rows([[5, 6], [7]])
    assert ids.tolist() == [[5, 6], [7, 0]]
    assert mask.tolist() == [[True, True], [True, False]]


def test_the_guard_is_the_loss_with_each_picture_and_with_another(base, place):
    spec = spec_of(base, data={"validation_samples": 5}, score={"batch_size": 2})
    built = built_for(spec)
    _, guard = Scorer(spec, built, place).score()
    found = evaluation_set(spec, built.tokenizer, built.model.prefix_ids)
    gaps = []
    with torch.no_grad():
        for i, sample in enumerate(found.validation):
            other = found.validation[(i + 2) % 5]
            assert other.key != sample.key
            right, wrong = (one_loss(built, sample.caption, s.image) for s in (sample, other))
            gaps.append(wrong - right)
    gaps = torch.tensor(gaps)
    assert guard.gap == pytest.approx(float(gaps.mean()), abs=1e-6)
    assert guard.gap_error == pytest.approx(float(gaps.std() / 5**0.5), abs=1e-6)


def one_loss(built, caption, image):
    from jobs.data.batch import collate
    from jobs.data.sample import Sample

    sample = Sample(image=image, caption=caption, key="one")
    batch = collate([sample], built.tokenizer, built.image_processor, 64)
    return float(built.model(batch))


def test_scores_repeat_exactly_and_leave_modes_and_random_state(base, place):
    spec = spec_of(base, model={"moca": {"kind": "noise", "init_std": 0.5}})
    built = built_for(spec)
    scorer = Scorer(spec, built, place)
    built.model.train()
    modes = [module.training for module in built.model.modules()]
    state = torch.get_rng_state()
    first, second = scorer.score(), scorer.score()
    assert first[0].mir == second[0].mir
    assert first[1] == second[1]
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in built.model.modules()] == modes
    assert all(p.grad is None for p in built.model.parameters())


def test_a_model_that_was_cast_before_is_scored_as_one_cast_afterwards(base, place):
    spec = spec_of(base)
    before, after = built_for(spec), built_for(spec)
    before.model.bfloat16()
    scorers = [Scorer(spec, built, place) for built in (before, after)]
    after.model.bfloat16()
    assert scorers[0].score()[0].mir == scorers[1].score()[0].mir


def test_a_moved_encoder_is_encoded_anew(base, place):
    spec = spec_of(base, model={"trainable": "everything"})
    built = built_for(spec)
    scorer = Scorer(spec, built, place)
    before = scorer.score()[0].mir
    with torch.no_grad():
        for parameter in built.model.vision.parameters():
            parameter.mul_(1.5)
    assert scorer.score()[0].mir != before


def test_mir_of_a_job_is_that_of_its_hidden_states(base, place):
    from mir.score import score_layers

    spec = spec_of(base)
    built = built_for(spec)
    report, _ = Scorer(spec, built, place).score()
    found = evaluation_set(spec, built.tokenizer, built.model.prefix_ids)
    vision, text = [[] for _ in range(3)], [[] for _ in range(3)]
    with torch.no_grad():
        for picture, ids in zip(found.pictures, found.text_ids, strict=True):
            pixels = built.image_processor(images=[picture.image], return_tensors="pt")
            row, mask = pad_rows([ids])
            tokens = built.model.sequence(
                built.model.encode(pixels["pixel_values"]), row, mask, found.prefix_ids
            )
            out = built.model.language(inputs_embeds=tokens.embeds, output_hidden_states=True)
            for layer, hidden in enumerate(out.hidden_states[1:]):
                vision[layer].append(hidden[tokens.vision_mask])
                text[layer].append(hidden[tokens.text_mask])
    layers = [(torch.cat(v), torch.cat(t)) for v, t in zip(vision, text, strict=True)]
    assert report.mir == pytest.approx(score_layers(layers, variant="exact").mir, abs=1e-5)
