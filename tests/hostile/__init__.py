"""Hostile inputs and two applications: what a caller may try, and what must come of it.

- `corpora`: addresses, strings, headers, whole messages and bodies that have broken somebody's mail or JSON.
- `surface`: every operation, parameter and field of the served document, so that a new one is tried by itself.
- `world`: a service with one of everything in it.
- `test_every_field`, `test_every_request`: each of these places with each of some injections, at the door.
- `test_addresses`, `test_main_fields`: the whole corpora in the fields that become mail.
- `test_on_the_wire`: what was accepted is what the peer sees, and nothing else.
- `test_two_applications`: what is one application's is not there for another.
"""
