"""The probe on plain modules: which tokens of which layers it keeps, and what it refuses."""

import pytest
import torch
from torch import nn

from mir.errors import MirError
from mir.probe import LayerProbe

B, T, D = 2, 6, 4


class Add(nn.Module):
    """A 'decoder layer' that adds a constant, as a tuple where asked."""

    def __init__(self, value: float, as_tuple: bool = False):
        super().__init__()
        self.value, self.as_tuple = value, as_tuple

    def forward(self, hidden):
        hidden = hidden + self.value
        return (hidden, None) if self.as_tuple else hidden


class Stack(nn.Module):
    def __init__(self, as_tuple: bool = False):
        super().__init__()
        self.layers = nn.ModuleList([Add(10.0**k, as_tuple) for k in range(3)])
        self.norm = Add(0.5)

    def forward(self, hidden):
        for layer in self.layers:
            hidden = layer(hidden)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        return self.norm(hidden)


def masks():
    vision, text = torch.zeros(B, T, dtype=torch.bool), torch.zeros(B, T, dtype=torch.bool)
    vision[:, 1:3] = True
    text[0, 3:] = True
    text[1, 3] = True
    return vision, text


@pytest.mark.parametrize("as_tuple", [False, True])
def test_keeps_the_announced_tokens_of_every_layer_the_last_after_the_norm(as_tuple):
    model, hidden_BTD = Stack(as_tuple), torch.randn(B, T, D)
    vision, text = masks()
    with LayerProbe(model.layers, model.norm) as probe:
        probe.positions(vision, text, [7, 3])
        model(hidden_BTD)
    added = [1.0, 11.0, 111.5]
    for (vision_ND, text_ND), value in zip(probe.layers(), added, strict=True):
        torch.testing.assert_close(vision_ND, hidden_BTD[vision] + value)
        torch.testing.assert_close(text_ND, hidden_BTD[text] + value)
    vision_pairs, text_pairs = probe.pairs()
    assert vision_pairs.tolist() == [7, 7, 3, 3]
    assert text_pairs.tolist() == [7, 7, 7, 3]


def test_without_a_final_norm_the_last_entry_is_the_last_layer():
    model = Stack()
    vision, text = masks()
    with LayerProbe(model.layers, None) as probe:
        probe.positions(vision, text, [0, 1])
        model(torch.zeros(B, T, D))
    assert [float(vision_ND[0, 0]) for vision_ND, _ in probe.layers()] == [1, 11, 111]


def test_layer_groups_in_two_passes_equal_one_pass():
    model, hidden_BTD = Stack(), torch.randn(B, T, D)
    vision, text = masks()

    def run(only):
        with LayerProbe(model.layers, model.norm, only=only) as probe:
            probe.positions(vision, text, [0, 1])
            model(hidden_BTD)
        return list(probe.layers())

    for one, two in zip(run(None), run([1, 2]) + run([3]), strict=True):
        assert torch.equal(one[0], two[0])
        assert torch.equal(one[1], two[1])


def test_forwards_without_positions_and_after_leaving_are_not_recorded():
    model = Stack()
    vision, text = masks()
    with LayerProbe(model.layers, model.norm) as probe:
        model(torch.ones(B, T, D))
        probe.positions(vision, text, [0, 1])
        model(torch.zeros(B, T, D))
        model(torch.ones(B, T + 3, D))
    model(torch.ones(B, T, D))
    first_vision_ND, first_text_ND = next(probe.layers())
    assert first_vision_ND.shape == (4, D)
    assert first_text_ND.shape == (4, D)
    assert bool((first_vision_ND == 1).all())


def test_a_hook_attached_before_is_seen():
    model = Stack()
    model.layers[0].register_forward_hook(lambda module, args, output: output * 2)
    vision, text = masks()
    with LayerProbe(model.layers, model.norm) as probe:
        probe.positions(vision, text, [0, 1])
        model(torch.zeros(B, T, D))
    assert float(next(probe.layers())[0][0, 0]) == 2.0


def test_captured_tokens_are_detached_copies():
    model, hidden_BTD = Stack(), torch.zeros(B, T, D, requires_grad=True)
    vision, text = masks()
    with LayerProbe(model.layers, model.norm) as probe:
        probe.positions(vision, text, [0, 1])
        model(hidden_BTD)
    vision_ND, _ = next(probe.layers())
    assert not vision_ND.requires_grad


def test_empty_masks_keep_step_without_tokens():
    model = Stack()
    none = torch.zeros(B, T, dtype=torch.bool)
    with LayerProbe(model.layers, model.norm) as probe:
        probe.positions(none, none, [0, 0])
        model(torch.zeros(B, T, D))
    assert [vision_ND.shape for vision_ND, _ in probe.layers()] == [(0, D)] * 3
    assert [len(pairs) for pairs in probe.pairs()] == [0, 0]


def test_clear_forgets_everything():
    model = Stack()
    vision, text = masks()
    with LayerProbe(model.layers, model.norm) as probe:
        for _ in range(2):
            probe.clear()
            probe.positions(vision, text, [0, 1])
            model(torch.zeros(B, T, D))
    assert len(next(probe.layers())[0]) == int(vision.sum())


def test_a_layer_that_was_left_out_is_an_error():
    model = Stack()
    vision, text = masks()
    with LayerProbe(model.layers, model.norm) as probe:
        probe.positions(vision, text, [0, 1])
        model.norm(model.layers[0](torch.zeros(B, T, D)))
        with pytest.raises(MirError, match="layer 2 saw no forward"):
            list(probe.layers())
        probe.positions(vision, text, [0, 1])
        model(torch.zeros(B, T, D))
    with pytest.raises(MirError, match="layer 2 saw 4 vision and 4 text tokens, 8 and 8"):
        list(probe.layers())


def test_a_model_that_changes_the_sequence_is_refused():
    model = Stack()
    vision, text = masks()
    with LayerProbe(model.layers, model.norm) as probe:
        probe.positions(vision, text, [0, 1])
        with pytest.raises(MirError, match=r"layer 1 has shape \(2, 9, 4\)"):
            model(torch.zeros(B, T + 3, D))


def test_masks_and_pairs_must_describe_one_batch():
    vision, text = masks()
    probe = LayerProbe(Stack().layers, None)
    with pytest.raises(MirError, match="do not describe one batch"):
        probe.positions(vision, text[:, 1:], [0, 1])
    with pytest.raises(MirError, match="3 pair"):
        probe.positions(vision, text, [0, 1, 2])


@pytest.mark.parametrize("only", [[0], [4], []])
def test_layers_that_do_not_exist_are_refused(only):
    with pytest.raises(MirError, match="1 to 3"):
        LayerProbe(Stack().layers, None, only=only)
