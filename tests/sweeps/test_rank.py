"""Rank agreement: known correlations, and a sentence that says plainly what they mean."""

import pytest
from sweeps_scores import scored

from sweeps.objective import direction, label, objective_error, objective_value
from sweeps.rank import rank_agreement


def finals(rows):
    return [scored(1000, mir, loss, gap) for mir, loss, gap in rows]


def test_mir_that_ranks_like_loss_and_gap_agrees():
    found = rank_agreement(finals([(2 + i, 3 + i, -i) for i in range(6)]))
    assert [(a.name, a.n, a.rho) for a in found.agreements] == [
        ("validation loss", 6, pytest.approx(1)),
        ("gap", 6, pytest.approx(-1)),
    ]
    assert found.sentence.endswith("it agrees with validation loss and gap.")
    assert "Over 6 trials" in found.sentence


def test_mir_that_ranks_the_other_way_round_is_said_to_contradict():
    found = rank_agreement(finals([(2 + i, 3 - i / 10, i) for i in range(6)]))
    assert "it contradicts validation loss and gap, so a better MIR did not" in found.sentence


def test_each_reading_gets_its_own_verdict():
    rows = [(2 + i, 3 + i, gap) for i, gap in enumerate([3, 1, 6, 2, 5, 1.5])]
    found = rank_agreement(finals(rows))
    assert "it agrees with validation loss; it says next to nothing about gap" in found.sentence
    assert found.agreements[1].agrees is None


def test_ties_and_few_trials_are_not_overrated():
    few = rank_agreement(finals([(1, 1, 1), (2, 2, 2), (3, 3, 3)]))
    assert few.sentence.endswith("3 trials say little.")
    for rows in ([], [(1, 1, 1), (2, 2, 2)], [(1, 2, 3)] * 9):
        found = rank_agreement(finals(rows))
        assert all(a.rho is None and a.agrees is None for a in found.agreements)
        assert "too few, or too alike" in found.sentence


def test_objectives_read_the_score():
    one = scored(10, 2.5, loss=3.5, gap=0.7, error=0.02, gap_error=0.03)
    read = {
        name: (label(name), direction(name), objective_value(name, one), objective_error(name, one))
        for name in ("mir", "validation-loss", "gap")
    }
    assert read == {
        "mir": ("MIR", "minimize", 2.5, 0.02),
        "validation-loss": ("validation loss", "minimize", 3.5, 0.0),
        "gap": ("gap", "maximize", pytest.approx(0.7), 0.03),
    }
    assert objective_error("mir", scored(10, 2.5, error=None)) == 0.0
