"""The Helm chart, linted and rendered by real Helm 3 and Helm 4.

combinations   the values that every general test goes through, and the pairs of all switches
manifests      how rendered objects are looked at
"""
