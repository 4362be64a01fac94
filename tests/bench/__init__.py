"""The benchmarks: how fast the service is, beside others on the same machine in the same run.

    make bench                                      everything; writes results/YYYY-MM-DD.md
    make bench ARGS="-k end_to_end"                 one of them; its rows replace those of the day's table
    BENCH_SCALE=0.1 BENCH_ROUNDS=1 make bench ARGS="-k drain"
                                                    a quick look: a tenth of the messages, one round, nothing written

| bench (`-k`) | what |
|---|---|
| `end_to_end and single` | single POSTs of 32 clients to the peer's 250 and the ledger, with Postfix in turns |
| `end_to_end and batches` | the same with batches of 100 |
| `acceptance` | the 202 alone, with a bare FastAPI POST in turns; batches of 100 |
| `drain` | a backlog of 100,000, with a bare aiosmtplib loop in turns; the claim in each tenth; memory |
| `distance` | a peer 30 ms away, three connections, with a bare aiosmtplib loop in turns |
| `idle` | one message at a time from the POST to the 250, with Postfix in turns; what an idle worker uses |
| `compose` | composing alone, and with an attachment of 1 MB |
| `ledger` | 1,000,000 messages against 1,000: status, pages, lane use, sweep, claim, accept |
| `memory` | at idle, and with messages of 25 MB on every connection |
| `limits` | a lane at 30 messages a minute |
| `lanes and workers`, `lanes and trickle` | two workers, eight lanes; 300 lanes and a stuck one |
| `login` | TLS and XOAUTH2 against plain SMTP |

Nothing here is part of the tests: the files are called `bench_*.py`, and only `make bench` looks for them
(`test_parts.py`, a test, sees that the parts work). What they are made of:

    figures     the table, scale and rounds        machine     CPU, memory and noise from /proc
    stack       the service as in production       programs    processes of our own, asked by lines of JSON
    loader      clients of the API                 sink        an SMTP server that knows when
    letters     the messages                       filler      a ledger of any size within minutes
    postfix     Postfix and its test programs      bare_http, bare_smtp   the yardsticks

Cores are shared by everything, so rates go down with whatever else runs: trust ratios, and CPU per
message. A figure is judged only against what ran in turns with it.
"""
