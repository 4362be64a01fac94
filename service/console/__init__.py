"""The console: the operators' pages under `/console`.

A second door, for people. It is the first client of the API and has no rights of its own: what a page shows and
what a button does goes through the API's own endpoints, in this process, in the name of whoever is signed in
(decision record 0016). So a page shows nothing that the API would not, scopes and refusals are the API's, and the
audit does not tell them apart. What the API has no words for (sign-ins, figures over time, the audit itself) comes from the
ledger.

    asking      one request to the API, in the name of somebody
    who         sign-in by a key, the cookie, what guards forms; directory: sign-in by Entra ID
    pages       templates, the headers of every answer; assets: the style and the script
    search message content bundle lanes routes reports explain audit     the pages
    live        what tells an open page that it has changed (Server-Sent Events)
    app         all of it, put together

Pages are made on the server and work without a script; the script only saves reloads and has keys for hands that
stay on the keyboard. Nothing is loaded from elsewhere, and the content security policy says so.
"""
