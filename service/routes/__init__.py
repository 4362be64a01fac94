"""Which way out, with which login.

    route.py         a route, its lanes, its limits: values
    kinds.py         what is true for every route of a kind, and where each cloud is: data
    choice.py        which route a message takes, and why not another: a pure plan
    mx.py            the hosts of a domain, from its MX records; the only place that asks the DNS
    tokens.py        access tokens from Entra ID; the only place that knows msal
    certificates.py  the rules for certificates that we present
    diagnoses/       what the other side's replies mean, who must act, and the remedy: data

A message's way: `RouteBook.plan` parts its recipients into deliveries on lanes; when a lane is
drained, `MxFinder.peers` says where its session goes, and `Tokens.login_for` what it logs in with.
"""
