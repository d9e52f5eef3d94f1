"""The names of all keys and channels of the farm in its Redis, and of Celery's: one function per kind.

The code that reads and writes a key and the rules of the broker's accounts (farm/broker/roles.py) take its name from
here, so that an account is allowed exactly the names that are used. A part of a name may be a pattern of Redis, such as
`*`: the function then gives the pattern of all keys of that kind. Names of queues and of control lists are in
farm/queues.py.
"""

PREFIX = "farm:"
#: The channel of events of builds, for listening processes.
EVENTS = f"{PREFIX}events"
#: The hosts whose workers are given no work, and why.
HELD = f"{PREFIX}held"
#: The scheduler that leads, and the sign that Redis has lost nothing since it led first.
SCHEDULER = f"{PREFIX}scheduler"
BORN = f"{PREFIX}born"
#: A key that never exists: a write to it shows whether Redis takes writes.
NONE = f"{PREFIX}none"
#: The prefixes of two kinds whose names have several parts.
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
    """The mark of a worker, by its token's digest, that asked for another worker's attempt. A pattern of `closed`
    matches it too."""
    return f"{closed(label)}:{digest}"


def wake(label: str) -> str:
    """The list at which a worker waits for a change of the attempt's offer or lease."""
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
    """By node name, the queues from which a worker must stop taking work."""
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


# --- the server -----------------------------------------------------------------------------------------------------


def rate(kind: str, who: str, window: int | str) -> str:
    """How often a client of the server did something within a window of time."""
    return f"{PREFIX}rate:{kind}:{who}:{window}"


# --- sweeping -------------------------------------------------------------------------------------------------------

OFFERS, LEASES = offer(""), lease("")
#: The prefixes of keys that end by themselves, and the longest time to live in seconds that the farm gives them. A key
#: of these with a longer one, or with none, is stale.
PASSING = {
    wake(""): 60,
    live_log(""): 600,
    closed(""): 300,
    WORKER_FACTS: 30,
    publish_waiting(""): 60,
    PUBLISH_ANSWERS: 60,
    publish_took(""): 3600,
    publish_lock(""): 60,
    f"{PREFIX}rate:": 120,
}
#: Keys of these kinds have at most so many bytes.
LARGEST = {OFFERS: 17 * 2**20, LEASES: 17 * 2**20, wake(""): 2**16, WORKER_FACTS: 2**18}


def is_ours(key: str) -> bool:
    """Whether the key belongs to the farm, and not to Celery."""
    return key.startswith(PREFIX)


def after_kind(key: str) -> str:
    """The part of a key's name after its kind, such as the label of an attempt."""
    return key.split(":", 2)[2]


# --- Celery's -------------------------------------------------------------------------------------------------------

#: The exchange for workers' answers to questions. The names of its queues end with this.
REPLIES = "reply.celery.pidbox"
#: The exchange for messages that wait behind all others of their queue.
BEHIND = "behind"
#: The queues of commands to one worker end with this.
COMMANDS = ".celery.pidbox"
#: The channel of commands to all workers. The channels of commands to one worker begin with it.
COMMAND_CHANNEL = "/0.celery.pidbox"
#: The events that Celery's workers send to Flower, and the queues of the processes that listen.
CELERY_EVENTS = "/0.celeryev/*"
CELERY_LISTENERS = "celeryev.*"


def replies(who: str) -> str:
    """The queue of answers to one asking client."""
    return f"{who}.{REPLIES}"


def commands(node: str) -> str:
    """The queue of commands to one worker."""
    return f"{node}{COMMANDS}"
