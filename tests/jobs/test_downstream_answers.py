"""Whether an answer is right, in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.downstream.answers import (
    exact_match,
    first_answer,
    normalised,
    token_f1,
    vqa_accuracy,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes.", "yes"),
        ("The red circle", "red circle"),
        ("two dogs", "2 dogs"),
        ("none", "0"),
        ("3.5", "3.5"),
        ("left-right", "left right"),
        ("it's", "it's"),
        ("  A  man ,  running ", "man running"),
    ],
)
def test_answers_are_made_comparable(text, expected):
    assert normalised(text) == expected


@given(st.text(max_size=30))
def test_making_comparable_twice_changes_nothing(text):
    assert normalised(normalised(text)) == normalised(text)


@pytest.mark.parametrize(
    ("generated", "expected"),
    [
        (" red . question : what", "red"),
        ("Red.\nQuestion: why", "Red"),
        ("\n two\nthree", "two"),
        ("3.5 metres", "3.5 metres"),
        ("", ""),
    ],
)
def test_an_answer_ends_with_its_line_or_sentence(generated, expected):
    assert first_answer(generated) == expected


def test_an_answer_ends_at_the_separator():
    assert first_answer("red ## question", " ## ") == "red"


def test_every_right_answer_counts():
    assert exact_match("The Cat", ["dog", "cat"]) == 1
    assert exact_match("cat dog", ["dog", "cat"]) == 0


def test_f1_in_closed_form():
    # Two of three words given are right, and they are two of two: 2 * 2 / (3 + 2).
    assert token_f1("big red circle", ["red circle"]) == pytest.approx(0.8)
    assert token_f1("red red", ["red"]) == pytest.approx(2 / 3)
    assert token_f1("blue", ["red", "blue square"]) == pytest.approx(2 / 3)
    assert token_f1("", ["red"]) == 0
    assert token_f1("the", ["a"]) == 1  # both say nothing once articles are gone


@pytest.mark.parametrize(
    ("agreeing", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)]
)
def test_vqa_accuracy_of_ten_people(agreeing, expected):
    # With one agreeing answer, 9 of the 10 sets of nine hold it: 9/10 * 1/3 = 0.3, and so on.
    answers = ["yes"] * agreeing + [f"no {n}" for n in range(10 - agreeing)]
    assert vqa_accuracy("Yes", answers) == pytest.approx(expected)


def test_vqa_accuracy_of_few_answers_is_the_exact_match():
    assert vqa_accuracy("red", ["red"]) == 1
    assert vqa_accuracy("red", ["blue", "green", "red"]) == 1
