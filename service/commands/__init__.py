"""The commands of `postroom`, a module for each kind.

programs   what runs until it is stopped, and the migration
mail       a message, a route or a reply, from the shell
keys       API keys of applications
reports    what the ledger says to administrators
configs    the configuration that is in force
base       what all of them need: the configuration, the loop, errors, the ledger

A command reads the configuration first; what is wrong with it is said on stderr, one line a mistake, and the
exit status is 2. Logs go to stderr, `--json` alone goes to stdout. Imports that only one command needs stand in it,
so that the others start quickly.
"""
