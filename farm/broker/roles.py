"""Accounts of the broker: which keys, channels and commands each role of the farm needs. `farm keys acl` prints them.

The table below is the only place with these rules; farm/broker/keys.py gives it the names of keys, as it gives them to
all code. An account's name is its role's name. Redis 7 is needed, for selectors (the groups in parentheses) and for
`%R~`. One selector has to allow a command with all of its keys. EVALSHA reads and writes, so it has selectors of its
own; Redis checks each command of a script by itself.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from urllib.parse import unquote, urlsplit

from farm import queues
from farm.broker import keys
from farm.steps.registry import kinds_for

SCHEDULER, FLOWER = "scheduler", "flower"
ACCOUNTS = (SCHEDULER, queues.CLIENT, FLOWER, *queues.WORKER_ROLES)

#: The commands that every connection uses. No CLIENT: Redis keeps names of connections outside of all limits of memory,
#: and a library that sets its name works without. (Redis allows HELLO to all.) No SELECT: no process sweeps other
#: databases.
_EVERYONE = "+auth +ping +echo +quit +reset +multi +exec +discard +time +script|exists"
#: Subscribing by pattern only: Redis compares an account's channels with each pattern letter by letter, so that an
#: account cannot make up names, which no limit of memory counts.
_SUBSCRIBE = "+psubscribe +punsubscribe +unsubscribe"
_BUILD_QUEUES = f"{queues.BUILD}.*"
_SCHEDULER_OWN = (
    f"~{queues.CONTROL} ~{queues.control_list('*')} ~{keys.PREFIX}* "
    f"~{queues.SOURCE}* ~{queues.PUBLISH}* ~{_BUILD_QUEUES} ~*{keys.COMMANDS}* "
    "+script|load +script|exists +evalsha +info +memory|usage +scan +type +ttl +object|idletime "
    "+exists +expire +pexpire +persist +del +unlink "
    "+get +mget +set +getrange +strlen +hset +hsetnx +hget +hmget +hdel +hexists +hlen +hstrlen +hincrby "
    "+lpush +lpushx +llen +lindex +ltrim +lmove +blmove +rpop +blpop "
    "+sadd +srem +smembers +scard +spop +sscan"
)
_SCHEDULER = (_SCHEDULER_OWN, f"+publish &{keys.EVENTS}")
#: The lock of one of Pulp's repositories. A client takes it for a rollback.
_PUBLISHING = f"+evalsha +get +set +ttl +del +expire ~{keys.publish_lock('*')}"
#: The facts of the workers of all roles.
_WORKERS_FACTS = f"{keys.WORKER_FACTS}*"
_CLIENT = (
    f"+evalsha +lpush +llen ~{queues.control_list(queues.CLIENT)} ~{queues.CONTROL_BELL}",
    f"+llen %R~{queues.control_taken(queues.CLIENT)}",
    f"+lpushx ~{keys.NONE}",
    f"+getrange %R~{keys.live_log('*')}",
    f"+sscan %R~{keys.workers('*')}",
    f"+getrange %R~{_WORKERS_FACTS}",
    f"+subscribe +unsubscribe &{keys.EVENTS}",
    f"+publish &{keys.EVENTS}",
    f"+set +incrby ~{keys.rate('*', '*', '*')}",
    _PUBLISHING,
)


def _queue(name: str, mark: str = "~") -> str:
    """A Celery queue: kombu appends two characters and a number to its name for messages of other priorities."""
    return f"{mark}{name} {mark}{name}??[369]"


_COMMAND_CHANNELS = f"&{keys.COMMAND_CHANNEL} &{keys.COMMAND_CHANNEL}*"
_FLOWER = (
    f"+llen %R~{queues.SOURCE}* %R~{queues.PUBLISH}* %R~{_BUILD_QUEUES} %R~{queues.CONTROL}*",
    f"+brpop +llen +del {_queue(keys.replies('*'))} {_queue(keys.CELERY_LISTENERS)}",
    f"{_SUBSCRIBE} &{keys.CELERY_EVENTS}",
    f"+publish {_COMMAND_CHANNELS}",
)
#: A builder sends the message of the upload that follows in its chain. The message gives no right to the upload, and it
#: waits behind the scheduler's own messages, so that a flood of such messages holds up no upload for long.
_CHAIN = (f"+lpush ~{queues.behind(queues.PUBLISH)}", f"+llen {_queue(queues.PUBLISH, '%R~')}")
#: With Pulp, publishers put their additions into one publication (farm/repositories/pulp/together.py).
_TOGETHER = (
    f"+hset +hget +hgetall +hdel +expire ~{keys.publish_waiting('*')}",
    f"+get +set ~{keys.publish_took('*')}",
    f"+lpush +lpop +blpop +expire +del ~{keys.PUBLISH_ANSWERS}*",
    _PUBLISHING,
)


def account_of(broker_url: str) -> str:
    """The account that a broker's URL names; empty if it names none."""
    return unquote(urlsplit(broker_url).username or "")


def acl(passwords: Mapping[str, str], accounts: Sequence[str] = ACCOUNTS) -> Iterator[str]:
    """Lines of a Redis ACL file, with the hashes of these passwords. The default account is switched off.

    It keeps its permissions: Redis loads its append-only file as that account, and checks them again at each EXEC, so
    that without them a restart drops every transaction and every write of a script. No client can use the account: it
    is off and has no password.
    """
    yield "user default off resetpass ~* &* +@all"
    for account in accounts:
        first, *selectors = _rules(account)
        groups = " ".join(f"({selector})" for selector in selectors)
        digest = hashlib.sha256(passwords[account].encode()).hexdigest()
        yield f"user {account} on #{digest} resetkeys resetchannels -@all {_EVERYONE} {first} {groups}".rstrip()


def admin(name: str, password: str) -> str:
    """The line of an account with all rights."""
    return f"user {name} on #{hashlib.sha256(password.encode()).hexdigest()} ~* &* +@all"


def _rules(account: str) -> tuple[str, ...]:
    """The account's own permissions, then its selectors."""
    match account:
        case "scheduler":
            return _SCHEDULER
        case "client":
            return ("", *_CLIENT)
        case "flower":
            return ("", *_FLOWER)
        case _:
            return ("", *_worker(account), *_more(account))


def _more(role: str) -> tuple[str, ...]:
    if role == queues.PUBLISH:
        return _TOGETHER
    return _CHAIN if role.startswith("build.") else ()


#: The form of the names under which Celery's clients ask: no worker may make up other lists, which no process deletes.
_ASKING = "-".join("[0-9a-f]" * length for length in (8, 4, 4, 4, 12))
#: The keys of an attempt that a worker's scripts read or write.
_SCRIPTED = (keys.offer, keys.lease, keys.closed, keys.live_log, keys.wake)


def _worker(role: str) -> tuple[str, ...]:
    """A worker reaches its queue, and the offers, leases and logs of its own kinds of attempts."""
    kinds = [*_kinds(role)]

    def of(key: Callable[[str], str], mark: str = "~") -> str:
        return " ".join(f"{mark}{key(f'*.{kind}.*')}" for kind in kinds)

    nodes = " ".join(_queue(keys.commands(f"{name}@*")) for name in dict.fromkeys((role, role.partition(".")[0])))
    return (
        f"+brpop +lpush +llen {_queue(role)}",
        f"+evalsha {' '.join(map(of, _SCRIPTED))} ~{keys.HELD}",
        # No HSET on offers: a forged offer would make another host of the arch work on paths that the forger chooses.
        f"+exists +hmget +hincrby +persist +del {of(keys.offer)}",
        f"+exists +hmget +hget +hset +pexpire +del {of(keys.lease)}",
        f"+exists {of(keys.closed, '%R~')}",
        f"+hget %R~{keys.HELD}",
        f"+setrange +expire {of(keys.live_log, '%W~')}",
        f"+blpop +lpush +expire {of(keys.wake)}",
        f"+evalsha +lpush +llen ~{queues.control_list(role)} ~{queues.CONTROL_BELL}",
        f"+llen %R~{queues.control_taken(role)}",
        f"+sadd %W~{keys.workers(role)}",
        f"+set +exists +del ~{keys.worker(role, '*')}",
        f"+hget %R~{keys.off(role)}",
        f"+lpush ~{keys.replies(_ASKING)}",
        f"+llen +del +brpop {nodes}",
        # Not together with PUBLISH: an account that may publish there commands every worker.
        f"{_SUBSCRIBE} {_COMMAND_CHANNELS}",
        f"+publish &{keys.CELERY_EVENTS}",
    )


def _kinds(role: str) -> Iterator[str]:
    """The part of the labels of this role's attempts after the build's number."""
    arch = queues.arch_of(role)
    for kind in kinds_for(role):
        yield f"{kind.name}.{arch}" if arch is not None else kind.name
