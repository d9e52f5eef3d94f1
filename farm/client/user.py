"""The actor that a local process is: its user, who is an administrator of the farm on this machine.

A process that can open the farm's database can change everything in it, so a lesser role would protect nothing here.
"""

import os
import pwd

from farm.config import Settings
from farm.model.actor import Actor, Role
from farm.service.request import check_owner


def local_actor(settings: Settings) -> Actor:
    """Named by `FARM_OWNER`, else by the process's user. Raises BadRequest for a name that no owner can have."""
    uid = os.geteuid()
    return Actor(name=check_owner(settings.owner or _name_of(uid)), roles=frozenset({Role.ADMIN}), uid=uid)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
