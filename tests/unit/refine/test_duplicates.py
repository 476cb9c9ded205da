"""Kernels and the duplicate search against slow, independent implementations."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from still_core.errors import DataError
from still_core.refine.duplicates import near_duplicates
from still_core.refine.kernels import (
    jaccard,
    least_plausible_characters,
    least_plausible_words,
    longest_blob,
    longest_loop,
    previous_occurrences,
    shingle_set,
    token_hashes,
)
from still_core.refine.plausibility import CHARACTERS, KINDS, LETTERS

words = st.lists(st.sampled_from(["alpha", "beta", "gamma", "delta", "eps"]), max_size=40)


def text_of(rng: random.Random, size: int = 120) -> str:
    return " ".join("".join(rng.choices("abcdefghij", k=rng.randint(2, 6))) for _ in range(size))


def shingles(text: str, size: int = 5) -> set[tuple[str, ...]]:
    """The oracle: shingles as tuples of words."""
    parts = text.split()
    size = min(size, len(parts))
    return {tuple(parts[i : i + size]) for i in range(len(parts) - size + 1)} if parts else set()


@given(words)
@settings(max_examples=60, deadline=None)
def test_previous_occurrences_are_what_a_dictionary_finds(parts: list[str]) -> None:
    found = previous_occurrences(token_hashes(" ".join(parts)), 3).tolist()
    last: dict[tuple[str, ...], int] = {}
    expected = []
    for i in range(len(parts) - 2):
        gram = tuple(parts[i : i + 3])
        expected.append(last.get(gram, -1))
        last[gram] = i
    assert found == expected


@given(words, words)
@settings(max_examples=60, deadline=None)
def test_jaccard_is_what_python_sets_give(a: list[str], b: list[str]) -> None:
    one, two = shingles(" ".join(a)), shingles(" ".join(b))
    expected = len(one & two) / len(one | two) if one | two else 0.0
    mine = jaccard(shingle_set(" ".join(a), 5), shingle_set(" ".join(b), 5))
    # Texts of fewer than 5 words are one shingle of their own length.
    assert mine == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World 12", 4),
        ("x_1 = 3.14", 7),
        ("\u56e0\u6b64 4", 3),
        ("na\u00efve", 3),
        ("", 0),
        ("   \n", 0),
    ],
)
def test_tokens_are_words_numbers_symbols_and_single_characters(text: str, expected: int) -> None:
    assert len(token_hashes(text)) == expected


def test_case_does_not_tell_tokens_apart_and_masking_makes_numbers_alike() -> None:
    assert token_hashes("The sum").tolist() == token_hashes("the SUM").tolist()
    assert token_hashes("step 12").tolist() != token_hashes("step 7").tolist()
    masked = token_hashes("step 12", masked=True)
    assert masked.tolist() == token_hashes("step 7", masked=True).tolist()
    assert (masked & np.uint64(1)).tolist() == [1, 0]


def test_a_loop_is_found_with_its_place_period_and_length() -> None:
    text = "one two three four " + "a b c d e " * 10 + "five six"
    assert longest_loop(token_hashes(text), min_tokens=20, min_turns=3.0) == (4, 5, 50)
    assert longest_loop(token_hashes(text), min_tokens=51, min_turns=3.0) == (0, 0, 0)
    assert longest_loop(token_hashes(text), min_tokens=20, min_turns=11.0) == (0, 0, 0)


def test_unlikely_words_stand_where_they_were_planted() -> None:
    sound = "we add the numbers and look at the result again before we go on to the next step " * 6
    worst, _ = least_plausible_words(sound, LETTERS, 60)
    assert worst > -3.5
    mixed = sound + "xqj zvkw qpxz jjwq vbxk zzqf kwpx qjzv xkqw bvzj qxjw zpvk wqxj " + sound
    worst, at = least_plausible_words(mixed, LETTERS, 40)
    assert worst < -5.0
    assert abs(at - len(sound)) < 30
    # Commands, names in code and acronyms are no words.
    assert least_plausible_words("\\xqjzvkw x_qpxz ACGTTGCA " * 30, LETTERS, 40) == (0.0, 0)


def test_formulas_are_likely_characters_and_noise_is_not() -> None:
    formula = "\\[ \\frac{2x^2 + 3x - 5}{x - 1} = 2x + 5, \\quad x \\neq 1 \\] " * 4
    rng = random.Random(0)
    noise = "".join(chr(rng.randrange(33, 127)) for _ in range(200))
    assert least_plausible_characters(formula, KINDS, CHARACTERS, 96)[0] > -3.3
    assert least_plausible_characters(noise, KINDS, CHARACTERS, 96)[0] < -4.0


def test_encoded_data_is_a_long_run_of_both_cases_and_digits() -> None:
    rng = random.Random(1)
    blob = "".join(rng.choices("abcXYZ019+/qwERT7", k=90))
    assert longest_blob(f"see {blob} there") == (90, 4)
    assert longest_blob("a" * 200 + " " + "ACGT" * 50 + " " + "1234567890" * 20)[0] == 0


@pytest.mark.parametrize("target", [0.82, 0.88, 0.94])
def test_planted_near_copies_are_found_and_others_are_not(target: float) -> None:
    rng = random.Random(int(100 * target))
    texts = [text_of(rng) for _ in range(200)]
    planted = []
    for i in range(0, 200, 4):
        parts, own = texts[i].split(), shingles(texts[i])
        while True:
            changed = parts.copy()
            changed[rng.randrange(len(parts))] = "other"
            new = shingles(" ".join(changed))
            if len(own & new) / len(own | new) < target:
                break
            parts = changed
        texts.append(" ".join(parts))
        planted.append((len(texts) - 1, i))
    keys = [f"{i:04d}" for i in range(len(texts))]
    found = near_duplicates(texts, keys, threshold=0.8)
    assert [(one.index, one.of) for one in found] == planted
    for one in found:
        own, new = shingles(texts[one.of]), shingles(texts[one.index])
        assert one.jaccard == pytest.approx(len(own & new) / len(own | new))


def test_the_lower_key_is_kept_whatever_the_order() -> None:
    rng = random.Random(5)
    base = text_of(rng)
    # A chain: neighbours are near, the ends are not.
    chain = [base]
    for i in range(6):
        parts = chain[-1].split()
        parts[20 * i % 115] = f"new{i}"
        parts[(20 * i + 10) % 115] = f"old{i}"
        chain.append(" ".join(parts))
    rows = [(f"k{i}", text) for i, text in enumerate(chain)]
    expected = None
    for seed in range(50):
        random.Random(seed).shuffle(rows)
        found = near_duplicates([t for _, t in rows], [k for k, _ in rows], threshold=0.8)
        lost = {(rows[one.index][0], rows[one.of][0]) for one in found}
        expected = expected or lost
        assert lost == expected
    assert expected
    kept = {key for key, _ in rows} - {key for key, _ in expected}
    assert "k0" in kept
    assert all(of in kept for _, of in expected)


def test_a_thousand_equal_texts_leave_one() -> None:
    found = near_duplicates(["the same text of a few words"] * 1000, [str(i) for i in range(1000)])
    assert len(found) == 999
    assert Counter(one.of for one in found) == {0: 999}


def test_empty_texts_are_nobodys_duplicates_and_keys_must_be_unique() -> None:
    assert near_duplicates(["", " "], ["a", "b"]) == []
    assert near_duplicates([], []) == []
    with pytest.raises(DataError, match="unique key"):
        near_duplicates(["a", "b"], ["k", "k"])
