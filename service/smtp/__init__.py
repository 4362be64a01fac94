"""One SMTP dialogue with one peer: what was said, how far it came, and nothing more.

This room reports, it does not judge: what a reply means for a recipient, whether to try
again and when, is decided elsewhere. It is the only room that knows aiosmtplib.

Opening a session (`session.open_session`), each step with its own limit of time:

 1. Resolve the peer's name, connect to the first of its addresses that takes us.
 2. Read the greeting, say EHLO.
 3. STARTTLS, handshake, EHLO again; the first list of extensions is forgotten. Octets behind
    the 220 end the session. Where TLS is required: no STARTTLS, no session; a certificate
    that is not the peer's, no session.
 4. Log in, where a login is given: over verified TLS only, by the one mechanism that was
    chosen, once.

One transaction (`session.Session.transmit`):

 1. See whether the session survived its rest. If not: nothing was sent (`untouched`).
 2. See whether the peer offers what the message needs (SIZE, 8BITMIME, SMTPUTF8).
 3. MAIL FROM. A refusal ends the transaction, not the session.
 4. RCPT TO for each recipient; every reply is kept. If none is accepted: RSET, and the
    replies say all.
 5. DATA. Only a 354 goes on; after a refusal RSET. Where the peer offers PIPELINING, 3 to 5
    leave in one write, and the replies are read in order (RFC 2920).
 6. Send the content, dots stuffed, in pieces as the network takes them. Whatever the peer
    says now is unasked: keep it, and close without the dot.
 7. Wait until the kernel has all of it, look again.
 8. Ask `before_dot`, the fence: no means close without the dot.
 9. Look once more, then send the dot; the next message's 3 to 5 may leave behind it, in the
    same write. From here on silence does not mean "not sent".
10. Read the reply. Any 2yz is acceptance, any 4yz or 5yz is not; everything else (silence,
    the end of the connection, codes that disagree, octets behind the reply) is no answer,
    and the report says that the dot was sent and nothing is known.

Files: `phase` how far · `reply` what the peer said · `transcript` the dialogue, secrets struck
out · `faults` how it breaks · `peer` whom, as whom, how long · `framing` octets to replies ·
`watch` waiting · `wire` the connection · `tls`, `login`, `opening` the way to a session ·
`parcel` a message and its commands · `content` dot stuffing · `transaction` one message's
dialogue · `report` what came of it · `session` one message after another.
"""
