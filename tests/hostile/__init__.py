"""Hostile inputs and two applications: what a caller may try, and what must come of it.

- `corpora`: addresses, strings, headers, whole messages and bodies that have broken somebody's mail or JSON.
- `surface`: every operation, parameter and field of the served document, so that a new one is tried by itself.
- `asking`, `world`, `tenants`, `letters`: one request; a service with callers; an application with one of
  everything; a message as it was asked for and as it was seen.
- `test_every_field`: each place of each request with each of some injections, at the door.
- `test_main_fields`: the whole corpora of what no mail may be made of, in the fields that become mail.
- `test_on_the_wire`: what was accepted is what the peer sees, and nothing else.
- `test_two_applications`: what is one application's is not there for another.
"""
