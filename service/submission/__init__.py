"""The HTTP door.

    app          puts it together: every group of endpoints, and what is around every answer
    door         what all endpoints share: the ledger, the routes, who is calling, patience
    models, representation, problems    how requests, answers and refusals look

    who          who is calling            request      bodies, queries and headers, read strictly
    intake       mail on its way in        templating   templates, rendered in processes of their own
    history      looking for mail          acts         what people do to it
    feed         events, webhooks          suppressing  who gets no mail
    ways         routes, checks, advice    contract     the document, and the codes of refusals
    resend       the same messages in the shape of another API

A group of endpoints is a module with `endpoints(door)`; it never talks to another one but by way of the
ledger.
"""
