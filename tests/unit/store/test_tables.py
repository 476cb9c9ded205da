"""Parquet tables: whoever reads one leaves nothing behind in the process."""

from __future__ import annotations

import subprocess
import sys

ALONE = """
import os
from still_core.store.tables import decode_table, table_bytes

data = table_bytes([{"number": n, "text": str(n)} for n in range(5000)])
before = len(os.listdir("/proc/self/task"))
assert decode_table(data, "key").num_rows == 5000
print(len(os.listdir("/proc/self/task")) - before)
"""


def test_reading_a_table_starts_no_thread_that_could_outlive_the_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "0\n"
