"""Every model family against a naive loop over `output_hidden_states`, one sequence at a time."""

import pytest
import torch
import transformers as tf
from probe_models import FAMILIES, IMAGE, TEXT, VISION, family, padded

from mir.capture import Batch, score_model
from mir.errors import EmptyModalityError, MirError
from mir.families import find_subject, image_token_id, token_positions
from mir.memory import MemoryPlan
from mir.probe import LayerProbe
from mir.report import Protocol
from mir.score import score_layers


def naive(model, rows):
    """(vision_ND, text_ND) per layer from unpadded sequences and their full hidden states."""
    layers = None
    for row in rows:
        with torch.no_grad():
            output = model(**row, output_hidden_states=True)
        output = getattr(output, "language_model_outputs", None) or output
        ids = row["input_ids"][0]
        image = (ids == IMAGE).nonzero().flatten()
        states = [hidden[0] for hidden in output.hidden_states[1:]]
        layers = layers or [([], []) for _ in states]
        for (vision, text), hidden_TD in zip(layers, states, strict=True):
            vision.append(hidden_TD[image])
            text.append(hidden_TD[int(image[-1]) + 1 :])
    return [(torch.cat(vision), torch.cat(text)) for vision, text in layers]


def batch_of(model, rows, pairs, fill=0):
    inputs = padded(rows, fill)
    vision, text = token_positions(
        inputs["input_ids"], inputs["attention_mask"], image_token_id(model)
    )
    return Batch(inputs=inputs, vision=vision, text=text, pairs=pairs)


def caught(model, batches):
    subject = find_subject(model)
    with torch.no_grad(), LayerProbe(subject.decoder_layers, subject.final_norm) as probe:
        for batch in batches:
            probe.positions(batch.vision, batch.text, batch.pairs)
            subject.forward(batch.inputs)
    return list(probe.layers())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_padded_batch_equals_the_naive_loop(name):
    model, rows = family(name)
    expected = naive(model, rows)
    got = caught(model, [batch_of(model, rows, range(len(rows)))])
    assert len(got) == len(expected) == 3
    for (vision_ND, text_ND), (naive_vision_ND, naive_text_ND) in zip(got, expected, strict=True):
        torch.testing.assert_close(vision_ND, naive_vision_ND, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(text_ND, naive_text_ND, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_stands_in_the_padding_changes_nothing(name):
    model, rows = family(name)
    zeros, sevens = (caught(model, [batch_of(model, rows, range(len(rows)), fill)])
                     for fill in (0, 7))  # fmt: skip
    for one, other in zip(zeros, sevens, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_logits_are_computed_and_no_attention_is_asked_for(name):
    model, rows = family(name)
    positions, asked = [], []
    head = model.get_output_embeddings()
    head.register_forward_hook(lambda module, args, output: positions.append(output.shape[1]))
    for layer in find_subject(model).decoder_layers:
        layer.register_forward_pre_hook(
            lambda module, args, kwargs: asked.append(kwargs.get("output_attentions")),
            with_kwargs=True,
        )
    caught(model, [batch_of(model, rows, range(len(rows)))])
    assert sum(positions) == 0
    assert asked
    assert not any(asked)


@pytest.mark.parametrize("groups", [(range(1, 4),), (range(1, 3), range(3, 4))])
@pytest.mark.parametrize("store", ["device", "host"])
def test_scoring_a_model_equals_scoring_its_naive_states(groups, store):
    model, rows = family("llava")
    model.train()
    expected = score_layers(naive(model.eval(), rows))
    model.train()
    batches = [batch_of(model, rows[:2], (0, 1)), batch_of(model, rows[2:], (2,))]
    done = []
    report = score_model(
        find_subject(model),
        batches,
        plan=MemoryPlan(store=store, groups=groups, reason=""),
        protocol=Protocol(variant="exact", pairs=3),
        on_batch=lambda: done.append(1),
    )
    assert report.mir == pytest.approx(expected.mir, rel=1e-9)
    assert report.per_layer == pytest.approx(expected.per_layer, rel=1e-9)
    assert report.standard_error is not None
    assert len(done) == 2 * len(groups)
    assert model.training


def test_positions_are_image_tokens_and_what_follows_the_last_of_them():
    ids = torch.tensor([[1, 9, 9, 4, 9, 5, 6, 7], [1, 1, 9, 9, 8, 0, 0, 0]])
    mask = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    vision, text = token_positions(ids, mask, 9)
    assert vision.int().tolist() == [[0, 1, 1, 0, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0, 0]]
    assert text.int().tolist() == [[0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 0, 0, 0]]
    assert token_positions(ids, mask, 9, 2)[1].sum(1).tolist() == [2, 1]


@pytest.mark.parametrize("side", ["left", "right"])
def test_marks_after_the_picture_and_padding_on_either_side_are_no_text(side):
    # 7 brackets a picture: 7 9 9 7, then text; the second row has two positions of padding.
    rows, pad = [[1, 7, 9, 9, 7, 5, 6], [7, 9, 9, 7, 5]], [0, 0]
    ids = torch.tensor([rows[0], pad + rows[1] if side == "left" else rows[1] + pad])
    mask = (ids != 0).long()
    vision, text = token_positions(ids, mask, 9, marks={7, 4})
    assert vision.tolist() == (ids == 9).tolist()
    assert text.tolist() == ((ids == 5) | (ids == 6)).tolist()
    assert token_positions(ids, mask, 9, 1, {7})[1].tolist() == (ids == 5).tolist()


def test_an_image_token_in_the_padding_is_not_a_vision_token():
    ids, mask = torch.tensor([[9, 5, 9]]), torch.tensor([[1, 1, 0]])
    vision, text = token_positions(ids, mask, 9)
    assert vision.tolist() == [[True, False, False]]
    assert text.tolist() == [[False, True, False]]


@pytest.mark.parametrize(
    ("ids", "missing"),
    [([[9, 5], [4, 5]], "no image token 9"), ([[9, 5], [5, 9]], "no text token")],
)
def test_a_sequence_without_one_modality_is_named(ids, missing):
    with pytest.raises(EmptyModalityError, match=f"sequence 1 of the batch has {missing}"):
        token_positions(torch.tensor(ids), torch.ones(2, 2), 9)


def test_cross_attention_models_are_refused():
    config = tf.MllamaConfig(
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "attention_heads": 2,
            "num_global_layers": 1,
            "image_size": 16,
            "patch_size": 4,
            "intermediate_layers_indices": [0],
        },
        text_config={
            **TEXT,
            "cross_attention_layers": [1],
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        },
    )
    with torch.device("meta"):
        model = tf.MllamaForConditionalGeneration(config)
    with pytest.raises(MirError, match=r"looks at pictures through cross-attention \(layers.1"):
        find_subject(model)


def test_encoder_decoders_are_refused():
    config = tf.VisionEncoderDecoderConfig(
        encoder=tf.ViTConfig(**VISION).to_dict(),
        decoder=tf.GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=9).to_dict(),
    )
    with torch.device("meta"):
        model = tf.VisionEncoderDecoderModel(config=config)
    with pytest.raises(MirError, match="encoder-decoder"):
        find_subject(model)


def test_a_model_without_image_token_is_refused():
    with torch.device("meta"):
        model = tf.LlamaForCausalLM(tf.LlamaConfig(**TEXT))
    with pytest.raises(MirError, match="names no image token"):
        image_token_id(model)


def test_a_model_without_decoder_layers_is_refused():
    with pytest.raises(MirError, match="no decoder layers found in _Odd"):
        find_subject(_Odd())


class _Odd(torch.nn.Module):
    """A model without anything that looks like decoder layers."""

    config = tf.LlamaConfig(**TEXT)
