"""Pulp beside the farm: a real one on loopback for tests, demo and bench, and what a production one needs.

Knows nothing of how the farm publishes: that is farm/repositories/pulp.
"""
