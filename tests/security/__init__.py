"""Attacks: what docs/security.md promises and no other room of the tests shows."""
