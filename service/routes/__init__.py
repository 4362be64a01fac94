"""Which way out, with which login.

    route.py         a route, its lanes, its limits: values
    kinds.py         what is true for every route of a kind, and where each cloud is: data
    choice.py        which route a message takes, and why not another: a pure plan
    tokens.py        access tokens from Entra ID; the only place that knows msal
    certificates.py  the rules for certificates that we present
    diagnoses.py     what the other side's replies mean, who must act, and the remedy: data

A message's way: `RouteBook.plan` parts its recipients into deliveries on lanes; when a lane is
drained, `Tokens.login_for` says what its session logs in with.
"""
