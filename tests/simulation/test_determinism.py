"""One seed is one run: the same trace in every process, whatever order its hashes have."""

import os
import re
import subprocess
import sys
from pathlib import Path

from kvorum.simulator.run import run_seed
from kvorum.simulator.story import STATUS_NAMES
from kvorum.wire import link
from tests.support.seeds import first_seed

COUNT = 12
PROGRAM = """
import sys
from kvorum.simulator.run import run_seed
for seed in range(int(sys.argv[1]), int(sys.argv[1]) + int(sys.argv[2])):
    result = run_seed(seed)
    sys.stdout.write(f"{seed} {result.digest} {result.events} {result.counts}\\n")
"""


def test_a_seed_gives_the_same_trace_in_processes_that_hash_differently() -> None:
    told = []
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(first_seed()), str(COUNT)],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        told.append(done.stdout.splitlines())
    assert len(told[0]) == COUNT
    assert told[0] == told[1]


def test_a_trace_that_is_kept_hashes_as_one_that_is_not() -> None:
    kept = run_seed(first_seed(), keep_trace=True)
    assert kept.digest == run_seed(first_seed()).digest
    assert len(kept.text.splitlines()) > 100


def test_each_answer_of_a_replica_has_its_word_in_the_story() -> None:
    """Found by seed 3944476547: a status was added, and whoever kept a trace got an exception."""
    document = Path(link.__file__).read_text()
    statuses = document[document.index("\nOK: Final") : document.index("\nCOUNT_MAX")]
    names = re.findall(r"^([A-Z_]+): Final = \d+", statuses, re.MULTILINE)
    assert len(names) == len(STATUS_NAMES)
    for name in names:
        word = STATUS_NAMES[getattr(link, name)]
        assert name.split("_")[0].lower() in word


def test_seeds_differ() -> None:
    assert run_seed(1).digest != run_seed(2).digest
