"""`disk_errors` under the name by which it is known to those who keep files beside the store."""

from farm.errors import disk_errors

__all__ = ["disk_errors"]
