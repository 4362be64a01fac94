"""Who is calling: keys, access tokens of Entra ID, networks, and callers that try keys."""
