"""An exported model scores as its checkpoint does, MoCa and protocol included."""

import pytest
import torch
import transformers as tf
from score_models import save_pairs
from tokenizers import Tokenizer, models, pre_tokenizers

from jobs.checkpoint import Progress, save
from jobs.export.run import export_checkpoint
from jobs.model.build import build_model
from jobs.spec import JobSpec
from mir.errors import DataError
from orchestrator.scoring.checkpoint import is_ours
from orchestrator.scoring.inputs import choose_pairs
from orchestrator.scoring.run import Request, score_pairs

PAIRS = 4
TALK = "{% for m in messages %}user: {{ m['content'] }} {% endfor %}bot:"
WORDS = "the a red blue green round square shape stands next to another one and is small"


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A tiny CLIP and a tiny Llama whose tokenizer has a first token that it does not add."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    vision = tf.CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        image_size=16, patch_size=8,
    )  # fmt: skip
    tf.CLIPVisionModel(vision).save_pretrained(folder / "clip")
    square = {"height": 16, "width": 16}
    tf.CLIPImageProcessorPil(size=square, crop_size=square).save_pretrained(folder / "clip")
    special = ["<pad>", "<unk>", "<s>", "</s>", "user:", "bot:"]
    vocabulary = {word: k for k, word in enumerate([*special, *WORDS.split()])}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tf.PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", unk_token="<unk>", bos_token="<s>",
        eos_token="</s>", chat_template=TALK,
    ).save_pretrained(folder / "llama")  # fmt: skip
    language = tf.LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=24, intermediate_size=32, num_hidden_layers=3,
        num_attention_heads=2, num_key_value_heads=2,
    )  # fmt: skip
    tf.LlamaForCausalLM(language).save_pretrained(folder / "llama")
    return {"vision": str(folder / "clip"), "language": str(folder / "llama")}


def saved(model, folder, template="plain"):
    """An untrained checkpoint whose MoCa is far from doing nothing."""
    scenes = {"style": "detailed", "size": 8}
    spec = JobSpec.model_validate(
        {
            "model": {**model, "moca": {"init_std": 0.5}},
            "data": {"sources": {"scenes": scenes}, "validation": scenes},
            "score": {"template": template},
        }
    )
    built = build_model(spec.model, seed=3).model
    trained = {f"weight/{n}": p.data for n, p in built.named_parameters() if p.requires_grad}
    progress = Progress(samples=8, step=1, scored=8, ranks=1)
    return save(folder / "checkpoints", spec, progress, trained).path


def scored(model, pairs, template="auto"):
    request = Request(
        model=str(model), variant="exact", device="cpu", dtype="auto", batch_size="3",
        max_text_tokens=None, memory="auto", template=template,
    )  # fmt: skip
    return score_pairs(request, pairs, lambda *_: None)[0]


@pytest.mark.parametrize(
    ("form", "changes", "template"),
    [
        ("llava", {}, "plain"),
        ("mirsweep", {"projector": "linear", "projector_norm": True}, "plain"),
        ("mirsweep", {"projector": "linear"}, "chat"),
    ],
)
def test_an_export_has_the_mir_of_its_checkpoint(parts, tmp_path, form, changes, template):
    checkpoint = saved({**parts, **changes}, tmp_path, template)
    done = export_checkpoint(checkpoint, tmp_path / "out")
    assert (done.form, done.moca_layers) == (form, (1, 2, 3))
    pairs = choose_pairs(*save_pairs(tmp_path / "pairs", PAIRS), PAIRS)
    before, after = scored(checkpoint, pairs), scored(tmp_path / "out", pairs)
    assert after.mir == pytest.approx(before.mir, abs=1e-5)
    assert after.per_layer == pytest.approx(before.per_layer, rel=1e-4)
    assert after.fingerprint == before.fingerprint
    assert after.protocol.template == template
    assert scored(tmp_path / "out", pairs, "plain").protocol.template == "plain"


def test_without_its_moca_an_export_is_another_model(parts, tmp_path):
    checkpoint = saved(parts, tmp_path)
    export_checkpoint(checkpoint, tmp_path / "out")
    pairs = choose_pairs(*save_pairs(tmp_path / "pairs", PAIRS), PAIRS)
    with_it = scored(tmp_path / "out", pairs)
    (tmp_path / "out" / "moca.json").unlink()
    assert abs(scored(tmp_path / "out", pairs).mir - with_it.mir) > 0.01


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_a_damaged_export_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "mirsweep.json").write_text(content)
    pairs = choose_pairs(*save_pairs(tmp_path / "pairs", PAIRS), PAIRS)
    assert is_ours(str(tmp_path))
    with pytest.raises(DataError, match=r"mirsweep\.json: .*export") as refused:
        scored(tmp_path, pairs)
    assert "\n" not in str(refused.value)
