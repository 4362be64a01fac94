"""Inputs that have broken somebody, written for these tests and kept as code, so that each octet is seen.

What must happen to an address stands beside it. Of the others the tests know what is true of all.
"""
