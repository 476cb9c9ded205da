"""How probable one letter, or kind of character, is after another in mathematics, science and code.

Both tables were counted over public problems, solutions and programs (GSM8K and MATH train, AIME
1983-2023, MATH-500, Omni-MATH, HuatuoGPT-o1 demo, LeetCode, MBPP, HumanEval), with a few added to
every count. Row: what stands before, column: what follows. A digit of base 62 (0-9, A-Z, a-z) is
minus the natural log-probability in sixths, cut at 61/6 = 10.2 nats.
"""

from __future__ import annotations

import string

import numpy as np
import numpy.typing as npt

_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase


def _table(text: str, size: int) -> npt.NDArray[np.float32]:
    values = [-_DIGITS.index(digit) / 6.0 for digit in text]
    return np.array(values, np.float32).reshape(size, size)


def _kinds() -> npt.NDArray[np.int64]:
    """[256] kind of every byte; -1 for bytes outside ASCII and control characters."""
    kinds = np.full(256, -1, np.int64)
    for kind, group in enumerate((string.ascii_lowercase, string.ascii_uppercase, string.digits)):
        kinds[[ord(c) for c in group]] = kind
    kinds[[ord(c) for c in " \t\n\r"]] = BLANK
    for number, symbol in enumerate(string.punctuation):
        kinds[ord(symbol)] = BLANK + 1 + number
    return kinds


LETTERS = _table(
    "lMILhSObLpNDLAuQnCEDRMPVJjM"
    "DUZj6vuwHerEpmCdyIQTFrrbHwO"
    "CnTgCzuAJzGIUmAzhNcGKzzmQvO"
    "GkkPDgYkEgvYeYGbyIHTOjarRx5"
    "HcMIKRRkSzVLQGWVVCDKiTVRRn6"
    "LxszILszCzzNzvBzzHjIQzntWz5"
    "HljpArPEGyvKXOIlyFIOMyogWy8"
    "Bfuf5zzzGzzceZEpxOVNUzozZzC"
    "OTHJJOLrmvVHK8JQlIBFZKwTtSW"
    "7jkk9kkkJkkkkk8hkkjkAkkhgkU"
    "MehX6ZRiDphQWOUcuaBlbragSu8"
    "DcXJAQmzFzUCdnGbzaJPKXjzIwA"
    "9FltBjgtDzzYOfDIzeLvIzzlVvC"
    "MoJBFaElLjTWlRMezjIDIZpuKj8"
    "VTSQQCRaQiQJICKOwDJGFSHVYcE"
    "BhYpAnpMGzfDPjCKpEKPKzppYzH"
    "llVllllllllllgllbHjg1llgljL"
    "FWQM9aTgFwQVQPGazPEKRXgwNz8"
    "OlRaGdzIJzYXXbKOTnMEMxVzTz3"
    "HfYsEnv7GzzVepEdyLIRQxPzTt9"
    "HNHMHYLvNugGDDfJjCEDmqtoOfS"
    "Dttt2tqtBtthctLttttqmtttath"
    "DZthBlxBAzkYxLEszSNmwzztkx9"
    "EaNlEdobEooTOoZAoTWEfleoNZ6"
    "RWOZGlapPuuTRTKRyYGUhmjtye2"
    "Biii5hidJiiQiiGfieiYWheeUCF"
    "FIIJMIOHHUWLINGIdMGBVVIgTiz",
    27,
)
"""[27, 27] log-probability of a letter given the one before; 26 is a word's edge."""

BLANK = 3
"""Kinds: 0 lower case, 1 upper case, 2 digit, 3 white space, then each ASCII symbol by itself."""

KINDS = _kinds()

CHARACTERS = _table(
    "2YiAvYzbzzcUXngTeRmgpwhzczmijdUzWqcz"
    "2EbItXuJtlXULlZMQXhkbsRqktcdhZTutiQt"
    "Qf6BiXzOZkddKOODQMQderKLiztULTjznmKz"
    "3GFJxQWJtbdVsaRqTkeuzSKkvzTOzywzUoVq"
    "RRGCONRGRQLPERMPOPQQRRGQRRRIRPRRRRDR"
    "6LKImOjIdmefSmiCjam8ljmllmjdQmhmlmim"
    "ggb8ii2fiiigiiiiiiiiiiiihiigiiiiiiii"
    "BEA8qMrRrqgOcqoHTGrdhJiqPreGqprpfamq"
    "TVN3VMVFVVVVUVVNTKUSVVTVUVVTVVVVVVVV"
    "ROI6YYYVYLYWYYWYXWXYYX6WYYYIYXYYYXYY"
    "3IRJfWfRffPYLTeDcXfPefcfcfZbJdbfffWf"
    "9G6RnGnbnnSHWCmnKVnnnnnnnnOOnkmneinn"
    "Zjh8gXnIldZMFQREFNUOAkMjcniSWLjnegPn"
    "8Q7EkXkUkkXRj9jkiNdakkhkkkjhkkkkjkLk"
    "EQ65kgkVjjhRjkVjiakkkjVkkkhMkkjkiejk"
    "ML65tUtOttgRrtttPettttttttHVttttomlp"
    "BJ6AmkmYmmiFlmmlCYmmmmiYmmkPmmllkglm"
    "EeB3phpJopiZXolfpSppppopnpoOnpopmmmo"
    "AT3DfefXfffWfYfZdVQfffcfffecffffffff"
    "YbN0hahdhfhhhbhhehcehhghhhhbchhhfhdh"
    "OUa1fefZfffeffafefYfefffffXYffffffRf"
    "Wj4Plklllllcllilhdlll5Pflllfllllkkll"
    "OW84qqqSqjnRqqqqXgqqqLDeqqcOqqqqjkpo"
    "dh4NlilllllllllliblllgZ4lllhlllllkll"
    "TUU2UPUIUUTUTUUUUUUUUUUUUUTSUUUUUUUU"
    "HMLLMNMNNNNNNNNNNNNMNNNNNNNKNNNNDNNN"
    "EQ3UjNjijjNQjjjjRjLejjfjjjIJOjjjgcjj"
    "2UkIdohUWiSXXnnWonongoooooJIJomoVXVo"
    "MLj7iZjXijUeKhc4ZTiZdiajijUcHeiiSiaj"
    "KX3agggfffgYgggggbggggggggfEgVggAggg"
    "2ODckdkjkkhhkkjjjkkkkkkkkkjhkkdkFkkk"
    "HILMMMMMMMMMMMMMMMMMMMMMMMMMMMMFMMMM"
    "9I5BmhmimmeNlklgRimlmmlmmkfImmmmgcYi"
    "9JIAUVVIVVUPRVNNOMVVVRJTVVVGVNVVTPKV"
    "SUW6memBmdiSPjNMTKgieeMfikgJgPXmAeIh"
    "DBKGOOONOOOOOOOOOONOOOOOJOOJOOOOOOON",
    36,
)
"""[36, 36] log-probability of a kind of character given the one before."""
