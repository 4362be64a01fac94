"""Fuzzing: what is read from outside, and what is counted and moved inside, under inputs that nobody thought of.

    test_addresses, test_raw, test_replies   hypothesis on the readers: each accepts or refuses, and what it accepts
                                             is what everybody else reads
    test_states, test_pace                   hypothesis on the ledger: sequences of acts, claims, crashes and time
                                             against a model
    fuzz_replies, fuzz_raw                   atheris (libFuzzer) on the two readers, as programs of their own

`make test` runs the programs for some seconds each. For longer, by hand, with what was found kept in a folder:

    .venv/bin/python -m tests.fuzz.fuzz_replies -max_total_time=3600 /tmp/replies tests/fuzz/corpus/replies
    .venv/bin/python -m tests.fuzz.fuzz_raw -max_total_time=3600 /tmp/raw tests/fuzz/corpus/raw

and hypothesis: `HYPOTHESIS_MAX_EXAMPLES=5000 .venv/bin/python -m pytest tests/fuzz`. What either finds becomes a fix
and a plain test beside the code's other tests; the input goes into `corpus`.
"""

import os

from hypothesis import settings


def examples(usual: int) -> settings:
    """So many examples, or as many as HYPOTHESIS_MAX_EXAMPLES says; the same ones each time unless it does."""
    wanted = os.environ.get("HYPOTHESIS_MAX_EXAMPLES")
    return settings(
        max_examples=int(wanted or usual), derandomize=wanted is None, deadline=None, database=None
    )
