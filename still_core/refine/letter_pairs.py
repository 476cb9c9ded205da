"""How probable one letter is after another in the prose of mathematics, science and code.

Counted over 4.7 million letter pairs of words in public problems and solutions (GSM8K and MATH
train, MATH-500, Omni-MATH, HuatuoGPT-o1 demo, LeetCode), with 3 added to every count. Row: the
letter before, column: the letter after, a to z and then the edge of a word. A digit of base 62
(0-9, A-Z, a-z) is minus the natural log-probability in sixths, cut at 61/6 = 10.2 nats.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TABLE = (
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
    "FIIJMIOHHUWLINGIdMGBVVIgTiz"
)
LOG_PROBABILITIES: npt.NDArray[np.float32] = np.array(
    [-_DIGITS.index(digit) / 6.0 for digit in _TABLE], np.float32
).reshape(27, 27)
"""[27, 27] natural log-probability of the second letter given the first; 26 is a word's edge."""
