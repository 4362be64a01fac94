"""The preflight: is a route in order, and if not, what exactly is to be mended? Nothing is sent.

    name ── connect ── greeting ── ehlo ── starttls ── tls ── peer_certificate   once a route
    client_certificate · spf                                                     once a route
    credential ── token ── auth ── mail ── rcpt ── rset ── quit                  once a lane: each mailbox

The dialogue is led by the same code as delivery's (`service.smtp.session`), with shorter limits
of time, and ends with RSET and QUIT before any content (decision record 0009). What the peer refuses is explained by the
catalogue of diagnoses; what fails before a peer could say anything has its remedies in
`remedies.py`.

Files: `steps` what a check is made of · `dialogue` from a session's facts to steps · `remedies`
what to do about names, connections and TLS · `claims` what a token says · `papers` certificates
and secrets, and when they end · `lookups` questions to DNS · `spf` the record: parsed, surveyed ·
`senders` the record judged for a route · `expiry` what is announced before it ends · `check` the
whole, for one route · `conduct` one check of a route at a time, and none too often.
"""
