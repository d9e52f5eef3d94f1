"""Repositories in a Pulp server, through pulp-glue: several publishers on several machines, and other users of Pulp."""

from farm.repositories.pulp.backend import PulpRepositories

__all__ = ["PulpRepositories"]
