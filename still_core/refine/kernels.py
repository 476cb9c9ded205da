"""Compiled loops over the bytes and tokens of a text: tokens, n-grams, loops, MinHash, Jaccard.

UTF-8 bytes -> token hashes -> (n-gram distances | shingle sets -> signatures)

A token is a run of ASCII letters or of digits (letters lower-cased), a run of other letters in
UTF-8, one Chinese or Japanese character, or one symbol. Hashes are 64-bit within one text: a
collision among a million n-grams is less likely than 1e-7; shingles are cut to 32 bits, where two
texts of 4,000 shingles share one by accident with a probability of 0.4 %.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_SEED = np.uint64(0x9E3779B97F4A7C15)
_MUL_A = np.uint64(0xFF51AFD7ED558CCD)
_MUL_B = np.uint64(0xC4CEB9FE1A85EC53)
_FNV = np.uint64(0x100000001B3)
_S33 = np.uint64(33)
_S32 = np.uint64(32)
_S29 = np.uint64(29)
_LOW = np.uint64(0xFFFFFFFF)
_FULL = np.uint64(0xFFFFFFFFFFFFFFFF)


@njit(cache=True, inline="always")
def _mix(x):  # type: ignore[no-untyped-def]
    x ^= x >> _S33
    x *= _MUL_A
    x ^= x >> _S33
    x *= _MUL_B
    x ^= x >> _S33
    return x


@njit(cache=True, nogil=True)
def _tokens_into(data, out, masked):  # type: ignore[no-untyped-def]
    """Write the token hashes of `data` to `out` (at least len(data) long); return their number.

    With `masked` all numbers hash alike, and the lowest bit of a hash tells whether its token is a
    word of letters.
    """
    count = 0
    i = 0
    n = len(data)
    while i < n:
        c = data[i]
        if c <= 32:
            i += 1
            continue
        h = _SEED
        word = False
        if 97 <= (c | 32) <= 122:
            while i < n and 97 <= (data[i] | 32) <= 122:
                h = (h ^ np.uint64(data[i] | 32)) * _FNV
                i += 1
            word = True
        elif 48 <= c <= 57:
            while i < n and 48 <= data[i] <= 57:
                if not masked:
                    h = (h ^ np.uint64(data[i])) * _FNV
                i += 1
        elif c < 128:
            h = (h ^ np.uint64(c)) * _FNV
            i += 1
        elif 0xE3 <= c <= 0xED:
            # One character of three bytes: kana, Chinese characters, Hangul.
            stop = min(n, i + 3)
            while i < stop:
                h = (h ^ np.uint64(data[i])) * _FNV
                i += 1
        else:
            while i < n and data[i] >= 128 and not (0xE3 <= data[i] <= 0xED):
                h = (h ^ np.uint64(data[i])) * _FNV
                i += 1
        h = _mix(h)
        if masked:
            h = (h & ~np.uint64(1)) | np.uint64(word)
        out[count] = h
        count += 1
    return count


@njit(cache=True, nogil=True)
def _grams(tokens, size):  # type: ignore[no-untyped-def]
    """Hash of every run of `size` tokens, by a rolling polynomial; mixed."""
    n = len(tokens)
    if n < size:
        return np.empty(0, np.uint64)
    base = np.uint64(0xD6E8FEB86659FD93)
    lead = np.uint64(1)
    for _ in range(size - 1):
        lead *= base
    out = np.empty(n - size + 1, np.uint64)
    h = np.uint64(0)
    for i in range(size):
        h = h * base + tokens[i]
    out[0] = _mix(h)
    for i in range(size, n):
        h = (h - lead * tokens[i - size]) * base + tokens[i]
        out[i - size + 1] = _mix(h)
    return out


@njit(cache=True, nogil=True)
def _previous(grams):  # type: ignore[no-untyped-def]
    """For every n-gram the offset of its last earlier occurrence, -1 where it is new."""
    n = len(grams)
    size = 16
    while size < 2 * n:
        size *= 2
    mask = np.uint64(size - 1)
    slots = np.full(size, -1, np.int64)
    previous = np.full(n, -1, np.int64)
    for i in range(n):
        at = grams[i] & mask
        while slots[at] >= 0 and grams[slots[at]] != grams[i]:
            at = (at + np.uint64(1)) & mask
        previous[i] = slots[at]
        slots[at] = i
    return previous


@njit(cache=True, nogil=True)
def _longest_loop(previous, size, min_tokens, min_turns):  # type: ignore[no-untyped-def]
    """(first token, period, tokens) of the longest loop; period 0 where there is none.

    In a loop every n-gram stands one period after its last occurrence, so a run of equal distances
    d of length r covers r + size - 1 + d tokens, which is (r + size - 1 + d) / d turns.
    """
    best_start, best_period, best_tokens = 0, 0, 0
    n = len(previous)
    i = 0
    while i < n:
        if previous[i] < 0:
            i += 1
            continue
        distance = i - previous[i]
        start = i
        while i < n and previous[i] >= 0 and i - previous[i] == distance:
            i += 1
        covered = (i - start) + size - 1 + distance
        if covered >= min_tokens and covered >= min_turns * distance and covered > best_tokens:
            best_start, best_period, best_tokens = start - distance, distance, covered
    return best_start, best_period, best_tokens


@njit(cache=True, nogil=True)
def _shingles(data, tokens, size):  # type: ignore[no-untyped-def]
    """32-bit shingles of a text, in order; `tokens` is scratch of at least len(data)."""
    count = _tokens_into(data, tokens, False)
    if count == 0:
        return np.empty(0, np.uint32)
    grams = _grams(tokens[:count], min(size, count))
    short = np.empty(len(grams), np.uint32)
    for i in range(len(grams)):
        short[i] = np.uint32(grams[i] >> _S32)
    return short


@njit(cache=True, nogil=True)
def _sign(shingles, bins):  # type: ignore[no-untyped-def]
    """Similarity sketch (Dahlgaard, Knudsen, Thorup 2017): two sets agree in a bin as in MinHash.

    In every round each shingle falls into one bin with a random value, and a bin keeps its least
    (round, value). Rounds end once no bin is empty: a few passes over the set instead of one per
    bin. The last rounds fill one bin each, so that a set of one shingle ends too.
    """
    width = len(bins)
    bins[:] = _FULL
    if len(shingles) == 0:
        return
    for turn in range(2 * width):
        seed = _mix(_SEED + np.uint64(turn))
        lead = np.uint64(turn) << _S32
        for s in range(len(shingles)):
            h = (np.uint64(shingles[s]) ^ seed) * _MUL_A
            h = (h ^ (h >> _S29)) * _MUL_B
            at = (
                np.int64(((h >> _S32) * np.uint64(width)) >> _S32) if turn < width else turn - width
            )
            value = lead | (h & _LOW)
            bins[at] = min(bins[at], value)
        empty = 0
        for b in range(width):
            empty += bins[b] == _FULL
        if empty == 0:
            return


@njit(cache=True, nogil=True)
def _jaccard(a, b):  # type: ignore[no-untyped-def]
    """Exact Jaccard similarity of two sorted sets; 0 where both are empty."""
    i, j, both = 0, 0, 0
    while i < len(a) and j < len(b):
        if a[i] == b[j]:
            both += 1
            i += 1
            j += 1
        elif a[i] < b[j]:
            i += 1
        else:
            j += 1
    union = len(a) + len(b) - both
    return both / union if union else 0.0


@njit(cache=True, nogil=True)
def _least_plausible_characters(data, kinds, table, window, sums, ends):  # type: ignore[no-untyped-def]
    """(mean log-probability, byte offset) of the least plausible window of characters.

    Runs of one symbol or of white space count once; pairs with a byte outside ASCII count nothing.
    Texts with fewer than `window` pairs are not judged: (0, 0).
    """
    pairs = 0
    total = 0.0
    before = -1
    for i in range(len(data)):
        here = kinds[data[i]]
        if here >= 3 and here == before:
            continue
        if here >= 0 and before >= 0:
            total += table[before, here]
            sums[pairs] = total
            ends[pairs] = i
            pairs += 1
        before = here
    if pairs < window:
        return 0.0, 0
    worst = sums[window - 1] / window
    at = 0
    for k in range(window, pairs):
        mean = (sums[k] - sums[k - window]) / window
        if mean < worst:
            worst = mean
            at = ends[k - window]
    return worst, at


@njit(cache=True, nogil=True)
def _word_loop(previous, size, prose, min_tokens, min_short_tokens, min_turns):  # type: ignore[no-untyped-def]
    """(first token, period, tokens) of the longest loop of words; period 0 where there is none.

    `prose[i]` counts the words of prose before token i. At least half of a turn's tokens are such
    words; turns of fewer than 5 tokens need `min_short_tokens` in all.
    """
    best_start, best_period, best_tokens = 0, 0, 0
    n = len(previous)
    i = 0
    while i < n:
        if previous[i] < 0:
            i += 1
            continue
        distance = i - previous[i]
        start = i
        while i < n and previous[i] >= 0 and i - previous[i] == distance:
            i += 1
        covered = (i - start) + size - 1 + distance
        least = min_tokens if distance >= 5 else min_short_tokens
        if covered >= least and covered >= min_turns * distance and covered > best_tokens:
            words = prose[start] - prose[start - distance]
            if 2 * words >= distance:
                best_start, best_period, best_tokens = start - distance, distance, covered
    return best_start, best_period, best_tokens


@njit(cache=True, nogil=True)
def _longest_blob(data):  # type: ignore[no-untyped-def]
    """(bytes, offset) of the longest run of encoded data.

    That is letters, digits, + / = with both cases and digits, or letters and digits alone that are
    each a fifth of it or more, as in hexadecimal.
    """
    best, best_at = 0, 0
    i = 0
    n = len(data)
    while i < n:
        start = i
        lower = upper = digits = 0
        while i < n:
            c = data[i]
            if 97 <= c <= 122:
                lower += 1
            elif 65 <= c <= 90:
                upper += 1
            elif 48 <= c <= 57:
                digits += 1
            elif not (c == 43 or c == 47 or c == 61):
                break
            i += 1
        # Encoded data have all three in quantity; names in code and formulas do not.
        size = i - start
        letters = lower + upper
        mixed = 20 * min(lower, upper, 2 * digits) >= size
        hexadecimal = letters + digits == size and 5 * min(letters, digits) >= size
        if size > best and (mixed or hexadecimal):
            best, best_at = size, start
        i += 1
    return best, best_at


def as_bytes(text: str) -> U8:
    """The UTF-8 bytes of a text; lone surrogates become question marks."""
    return np.frombuffer(text.encode("utf-8", "replace"), np.uint8)


def token_hashes(text: str, *, masked: bool = False) -> U64:
    """[num_tokens] hash of every token of the text, in order.

    Args:
        text: any text.
        masked: all numbers hash alike, and odd hashes are words of letters.
    """
    data = as_bytes(text)
    out = np.empty(len(data), np.uint64)
    return out[: _tokens_into(data, out, masked)]


def previous_occurrences(tokens: U64, size: int) -> I64:
    """For every n-gram of `size` tokens the offset of its last occurrence before; -1 if new."""
    result: I64 = _previous(_grams(tokens, size))
    return result


def longest_loop(
    tokens: U64,
    *,
    min_tokens: int,
    min_turns: float,
    size: int = 4,
    previous: I64 | None = None,
) -> tuple[int, int, int]:
    """(first token, period, tokens covered) of the longest exact loop; zeros where none.

    `previous` is what `previous_occurrences(tokens, size)` gave, where that is known.
    """
    known = previous_occurrences(tokens, size) if previous is None else previous
    start, period, covered = _longest_loop(known, size, min_tokens, min_turns)
    return int(start), int(period), int(covered)


def word_loop(
    tokens: U64,
    words: U64,
    *,
    size: int,
    min_tokens: int,
    min_short_tokens: int,
    min_turns: float,
    previous: I64 | None = None,
) -> tuple[int, int, int]:
    """(first token, period, tokens covered) of the longest exact loop of prose; zeros where none.

    Words of prose have two letters or more and are no LaTeX commands.

    Args:
        tokens: of the text.
        words: the same, masked: odd hashes are words of letters.
        size: tokens of the n-grams compared.
        min_tokens: least length of a loop whose turns have 5 tokens or more.
        min_short_tokens: least length of a loop of shorter turns.
        min_turns: least number of turns.
        previous: what `previous_occurrences(tokens, size)` gave, where that is known.
    """
    prose = (words & np.uint64(1)).astype(bool) & ~np.isin(tokens, _NO_PROSE[1:])
    prose[1:] &= tokens[:-1] != _NO_PROSE[0]
    before = np.concatenate((np.zeros(1, np.int64), np.cumsum(prose, dtype=np.int64)))
    known = previous_occurrences(tokens, size) if previous is None else previous
    start, period, covered = _word_loop(
        known, size, before, min_tokens, min_short_tokens, min_turns
    )
    return int(start), int(period), int(covered)


_NO_PROSE = token_hashes("\\ " + " ".join("abcdefghijklmnopqrstuvwxyz"))
"""A backslash, and the single letters."""


def shingle_set(text: str, size: int) -> U32:
    """Sorted distinct shingles of `size` tokens; a shorter text is one shingle."""
    data = as_bytes(text)
    # numpy sorts 32-bit integers with vector instructions, an order of magnitude faster than numba.
    found: U32 = np.sort(_shingles(data, np.empty(len(data), np.uint64), size))
    if len(found) < 2:
        return found
    distinct: U32 = found[np.concatenate(([True], found[1:] != found[:-1]))]
    return distinct


def jaccard(a: U32, b: U32) -> float:
    """Exact Jaccard similarity of two shingle sets, 0 to 1."""
    return float(_jaccard(a, b))


@njit(cache=True, nogil=True)
def _least_plausible(data, table, window, sums, ends):  # type: ignore[no-untyped-def]
    """(mean log-probability, byte offset) of the least plausible window of plain words.

    A plain word is a run of 3 or more ASCII letters, lower case but for the first, outside code
    fences, that no backslash, digit, underscore or other letter touches: commands, names in code,
    formulas, acronyms and sequences such as ACGT are no words. `sums` and `ends` are scratch of at
    least len(data). Texts with fewer than `window` letters in words are judged as a whole, and
    (0, 0) is returned where they have fewer than half.
    """
    n = len(data)
    pairs = 0
    total = 0.0
    i = 0
    fenced = False
    while i < n:
        c = data[i]
        if c == 96 and i + 2 < n and data[i + 1] == 96 and data[i + 2] == 96:
            fenced = not fenced
            i += 3
            continue
        is_letter = (97 <= c <= 122) or (65 <= c <= 90)
        if not is_letter:
            i += 1
            continue
        start = i
        plain = True
        while i < n and ((97 <= data[i] <= 122) or (65 <= data[i] <= 90)):
            if i > start and data[i] <= 90:
                plain = False
            i += 1
        if fenced or not plain or i - start < 3:
            continue
        if start > 0:
            b = data[start - 1]
            if b == 92 or b == 95 or b >= 128 or 48 <= b <= 57:
                continue
        if i < n and (data[i] == 95 or data[i] >= 128 or 48 <= data[i] <= 57):
            continue
        before = 26
        for j in range(start, i + 1):
            here = 26 if j == i else int(data[j] | 32) - 97
            total += table[before, here]
            sums[pairs] = total
            ends[pairs] = j
            pairs += 1
            before = here
    if pairs < window // 2:
        return 0.0, 0
    if pairs <= window:
        return total / pairs, 0
    worst = sums[window - 1] / window
    at = 0
    for k in range(window, pairs):
        mean = (sums[k] - sums[k - window]) / window
        if mean < worst:
            worst = mean
            at = ends[k - window]
    return worst, at


@njit(cache=True, nogil=True)
def _least_plausible_capitals(data, table, min_words, min_letters):  # type: ignore[no-untyped-def]
    """(mean log-probability, byte offset) of the least plausible run of words in odd capitals.

    A run is of words of 3 letters or more with capitals behind their first letter, one space
    between them. Acronyms rarely stand so; sequences of nucleotides do and are left out.
    """
    n = len(data)
    worst, at = 0.0, 0
    total, letters, count, begin, end = 0.0, 0, 0, 0, -2
    i = 0
    while i < n:
        if not 97 <= (data[i] | 32) <= 122:
            i += 1
            continue
        start = i
        capitals = others = 0
        total_here = 0.0
        before = 26
        while i < n and 97 <= (data[i] | 32) <= 122:
            here = int(data[i] | 32) - 97
            capitals += i > start and data[i] <= 90
            # Of the letters a, c, g, t, u, n a sequence is made.
            others += not (here == 0 or here == 2 or here == 6 or here == 13 or 19 <= here <= 20)
            total_here += table[before, here]
            before = here
            i += 1
        total_here += table[before, 26]
        if i - start < 3 or capitals == 0 or others == 0:
            continue
        if end != start - 1 or data[end] != 32:
            total, letters, count, begin = 0.0, 0, 0, start
        total += total_here
        letters += i - start + 1
        count += 1
        end = i
        if count >= min_words and letters >= min_letters and total / letters < worst:
            worst, at = total / letters, begin
    return worst, at


@njit(cache=True, nogil=True)
def _odd_words(data):  # type: ignore[no-untyped-def]
    """(letters, offset) of the longest word, (words, offset) of the longest run of mixed words.

    A mixed word is 4 or more small letters and digits, some of each; one space is between words.
    """
    n = len(data)
    longest, longest_at, most, most_at = 0, 0, 0, 0
    count, begin, end = 0, 0, -2
    i = 0
    while i < n:
        c = data[i]
        if not (97 <= (c | 32) <= 122 or 48 <= c <= 57):
            i += 1
            continue
        start = i
        letters = digits = capitals = run = 0
        while i < n:
            c = data[i]
            if 97 <= (c | 32) <= 122:
                letters += 1
                capitals += c <= 90
                run += 1
                if run > longest:
                    longest, longest_at = run, i - run + 1
            elif 48 <= c <= 57:
                digits += 1
                run = 0
            else:
                break
            i += 1
        if i - start < 4 or letters == 0 or digits == 0 or capitals:
            continue
        if end != start - 1 or data[end] != 32:
            count, begin = 0, start
        count += 1
        end = i
        if count > most:
            most, most_at = count, begin
    return longest, longest_at, most, most_at


def odd_words(text: str) -> tuple[int, int, int, int]:
    """(letters, byte offset) of the longest word, (words, byte offset) of the longest mixed run.

    A mixed word is 4 or more small letters and digits, some of each, as in random identifiers.
    """
    longest, longest_at, most, most_at = _odd_words(as_bytes(text))
    return int(longest), int(longest_at), int(most), int(most_at)


def least_plausible_capitals(
    text: str, table: npt.NDArray[np.float32], *, min_words: int, min_letters: int
) -> tuple[float, int]:
    """(mean log-probability in nats, byte offset) of the worst run of oddly capitalised words."""
    worst, at = _least_plausible_capitals(as_bytes(text), table, min_words, min_letters)
    return float(worst), int(at)


def least_plausible_words(
    text: str, table: npt.NDArray[np.float32], window: int
) -> tuple[float, int]:
    """(mean log-probability in nats, byte offset) of the least plausible window of plain words."""
    data = as_bytes(text)
    scratch = np.empty(len(data) + 1, np.float64), np.empty(len(data) + 1, np.int64)
    worst, at = _least_plausible(data, table, window, *scratch)
    return float(worst), int(at)


@njit(cache=True, nogil=True)
def _first_near(flat, starts, order, threshold, band_of, num_buckets, owner, min_size):  # type: ignore[no-untyped-def]
    """For every text the kept text it is near to and their similarity; -1 for kept texts.

    Texts are taken in `order`. A text is compared with the kept texts that share a bucket with it,
    by exact Jaccard similarity; it is dropped when any reaches the threshold. `band_of[i, b]` is
    the bucket of text i in band b, numbered over all bands. Texts of fewer than `min_size` shingles
    are compared only where they have the same owner.
    """
    n, bands = band_of.shape
    head = np.full(num_buckets, -1, np.int64)
    links = np.full(n * bands, -1, np.int64)
    holder = np.empty(n * bands, np.int64)
    used = 0
    near = np.full(n, -1, np.int64)
    similarity = np.zeros(n, np.float64)
    seen = np.full(n, -1, np.int64)
    checks = 0
    for i in order:
        own = flat[starts[i] : starts[i + 1]]
        for b in range(bands):
            entry = head[band_of[i, b]]
            while entry >= 0:
                j = holder[entry]
                if seen[j] != i:
                    seen[j] = i
                    other = flat[starts[j] : starts[j + 1]]
                    small, large = min(len(own), len(other)), max(len(own), len(other))
                    comparable = owner[i] == owner[j] or large >= min_size
                    if comparable and small >= threshold * large:
                        checks += 1
                        value = _jaccard(own, other)
                        if value >= threshold and value > similarity[i]:
                            near[i] = j
                            similarity[i] = value
                entry = links[entry]
        if near[i] < 0:
            for b in range(bands):
                bucket = band_of[i, b]
                holder[used] = i
                links[used] = head[bucket]
                head[bucket] = used
                used += 1
    return near, similarity, checks


@njit(cache=True, nogil=True)
def _band_keys(shingles, bands, rows):  # type: ignore[no-untyped-def]
    """[bands] 64-bit key of every band of a set's sketch."""
    bins = np.empty(bands * rows, np.uint64)
    _sign(shingles, bins)
    keys = np.empty(bands, np.uint64)
    for b in range(bands):
        h = _SEED + np.uint64(b)
        for r in range(rows):
            h = (h ^ bins[b * rows + r]) * _MUL_A
            h ^= h >> _S29
        keys[b] = _mix(h)
    return keys


def band_keys(shingles: U32, bands: int, rows: int) -> U64:
    """[bands] keys of one shingle set; equal keys in a band mean `rows` equal minima."""
    result: U64 = _band_keys(shingles, bands, rows)
    return result


def least_plausible_characters(
    text: str, kinds: I64, table: npt.NDArray[np.float32], window: int
) -> tuple[float, int]:
    """(mean log-probability in nats, byte offset) of the least plausible window of characters."""
    data = as_bytes(text)
    scratch = np.empty(len(data) + 1, np.float64), np.empty(len(data) + 1, np.int64)
    worst, at = _least_plausible_characters(data, kinds, table, window, *scratch)
    return float(worst), int(at)


def longest_blob(text: str) -> tuple[int, int]:
    """(bytes, offset) of the longest run that looks like encoded data."""
    size, at = _longest_blob(as_bytes(text))
    return int(size), int(at)


def first_near(
    flat: U32,
    starts: I64,
    order: I64,
    threshold: float,
    band_of: I64,
    num_buckets: int,
    owner: I64,
    min_size: int,
) -> tuple[I64, npt.NDArray[np.float64], int]:
    """(kept text that each text is near to or -1, their similarity, exact comparisons made)."""
    near, similarity, checks = _first_near(
        flat, starts, order, threshold, band_of, num_buckets, owner, min_size
    )
    return near, similarity, int(checks)
