"""Pulp beside the farm: a real one on loopback for tests, demo and bench, and the tools for a production one.

Knows nothing of the farm's publications, which are in farm/repositories/pulp.
"""
