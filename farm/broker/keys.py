"""Every key and channel of the farm in its Redis, and the names that Celery gives to its own: one function per kind.

The code that reads and writes a key and the rules of the broker's accounts (farm/broker/roles.py) take its name from
here, so that an account is allowed exactly the names that are used. A part of a name may be a pattern of Redis, such as
`*`: the function then gives the pattern of all keys of that kind. Names of queues and of control lists are in
farm/queues.py.
"""

PREFIX = "farm:"
#: Of all that happens to builds, to processes that listen.
EVENTS = f"{PREFIX}events"
#: The hosts whose workers are given no work, and why.
HELD = f"{PREFIX}held"
#: The scheduler that leads, and the sign that Redis has lost nothing since it led first.
SCHEDULER = f"{PREFIX}scheduler"
BORN = f"{PREFIX}born"
#: It is never there: a write to it shows whether Redis takes writes.
NONE = f"{PREFIX}none"
#: How the names of two kinds begin that have more than one part.
WORKER_FACTS, PUBLISH_ANSWERS = f"{PREFIX}worker:", f"{PREFIX}published:"


# --- attempts: `label` is an attempt's ------------------------------------------------------------------------------


def offer(label: str) -> str:
    return f"{PREFIX}offer:{label}"


def lease(label: str) -> str:
    return f"{PREFIX}lease:{label}"


def closed(label: str) -> str:
    """The mark of an attempt that is over."""
    return f"{PREFIX}closed:{label}"


def turned_away(label: str, digest: str) -> str:
    """The mark of a worker, by its token's digest, that asked for an attempt of another. A pattern of `closed` has it
    too."""
    return f"{closed(label)}:{digest}"


def wake(label: str) -> str:
    """The list at which a worker waits for something to happen to the attempt."""
    return f"{PREFIX}wake:{label}"


def live_log(label: str) -> str:
    return f"{PREFIX}log:{label}"


# --- workers --------------------------------------------------------------------------------------------------------


def workers(role: str) -> str:
    """The set of the node names of a role's workers."""
    return f"{PREFIX}workers:{role}"


def worker(role: str, node: str) -> str:
    """The facts of one worker."""
    return f"{WORKER_FACTS}{role}:{node}"


def off(role: str) -> str:
    """By node name, the queues from which a worker is to stop taking."""
    return f"{PREFIX}off:{role}"


# --- the group commit of repositories in Pulp -----------------------------------------------------------------------


def publish_waiting(repository: str) -> str:
    """The additions that wait for the publisher with the lock."""
    return f"{PREFIX}publish:{repository}"


def publish_answer(repository: str, publisher: str) -> str:
    """The version that has a waiting publisher's additions."""
    return f"{PUBLISH_ANSWERS}{repository}:{publisher}"


def publish_took(repository: str) -> str:
    """How many seconds the last publication took."""
    return f"{PREFIX}publish-took:{repository}"


def publish_lock(repository: str) -> str:
    return f"{PREFIX}publishing:{repository}"


# --- sweeping -------------------------------------------------------------------------------------------------------

OFFERS, LEASES = offer(""), lease("")
#: How the names of keys with a time to live begin. Without one they are left over.
PASSING = (wake(""), live_log(""), closed(""), WORKER_FACTS)


def is_ours(key: str) -> bool:
    """Whether the key is the farm's, and not Celery's."""
    return key.startswith(PREFIX)


def after_kind(key: str) -> str:
    """The rest of a key's name after its kind: of an attempt's key, the label."""
    return key.split(":", 2)[2]


# --- Celery's -------------------------------------------------------------------------------------------------------

#: The exchange of answers to questions to workers. Its queues end with this.
REPLIES = "reply.celery.pidbox"
#: The queues of commands to one worker end with this.
COMMANDS = ".celery.pidbox"
#: The channel of commands to all workers, and those of commands to one.
COMMAND_CHANNEL = "/0.celery.pidbox"
#: The events that Celery's workers send to Flower, and the queues of the processes that listen.
CELERY_EVENTS = "/0.celeryev/*"
CELERY_LISTENERS = "celeryev.*"


def replies(who: str) -> str:
    """The queue of answers to one who asked."""
    return f"{who}.{REPLIES}"


def commands(node: str) -> str:
    """The queue of commands to one worker."""
    return f"{node}{COMMANDS}"
