"""The likelihood that a line is a tool's error message, for tools without a pattern in reason_patterns.py.

The expressions are searched in a line of bounded length, and none nests one repetition in another.
"""

import re

#: Lines that are about an error, or about a test that passed, and do not name a cause.
_SUMMARY = re.compile(
    r"originates from a subprocess|complete log of this run|returned \d+ exit status|linker command failed"
    r"|returned a non-zero|exit status \d+$|previous errors?\b|due to compilation errors|compilation aborted"
    r"|\b(?:0|no) (?:errors?|failures?|failed)\b|\berrors?[=:] ?0\b|\bfailures?[=:] ?0\b"
    r"|\bfound \d+ (?:fatal )?errors?\b|^\d+ (?:errors?|warnings?) (?:generated|found)|finished with problems"
    r"|^g?make(?:\[\d+\])?: (?:\*\*\*|Entering|Leaving|Target|Nothing|warning)|^ninja: build stopped"
    r"|BUILD FAILED|usage: |ELIFECYCLE|^Node\.js v|-Werror\b.*(?:gcc|cc) "
    r"|^\s*(?:note|help|hint|warning)\b|warning: |ABORTING$|aborted!$"
    r"|not recoverable: exiting|Child returned status \d|could not compile `|failed to run custom build command"
    r"|after \w+ errors|process didn't exit successfully|subprocess-exited-with-error|metadata-generation-failed"
    r"|Failed (?:to build|building wheel)|Encountered error while|See above for|^\s*throw (?:new )?\w|^\s*raise \w"
    r"|^npm (?:error|ERR!) (?:code|errno|syscall|path|dest|aliases|command|signal|Usage|Options|Run \"|\s)"
    r"|^\s*(?:ok \d|PASS\b|\[ +(?:OK|PASSED) +\]|[✓✔] |--- PASS)|\.\.\. ok$",
    re.IGNORECASE,
)
#: A message after its place, as in `a.po:2: …`, `tool: a.lua:3:1: …`, `a.pas(3,1) …`, or before it, as Perl writes.
_PLACE = re.compile(
    r"^\W{0,4}(?:[\w./+-]{1,60}: )?(?=[\d./+@-]{0,100}[A-Za-z])[\w./+@-]{1,200}"
    r"(?::\d+(?:[:.,-]\d+){0,3}|\(\d+(?:,\d+)?\)):? (?!in |warning|note|info|remark|from |\d)\S+ +\S"
    r"| at \S{1,200} line \d{1,9}[.,]"
)
#: From the most likely on. A line may be the cause by itself from STRONG on; below, other lines are looked at first.
_LEVELS = (
    re.compile(r"(?:^|[\s:\]])(?:fatal|error|panic)(?:\[\w{1,20}\]| \w{1,20})?(?:: | - )\S", re.IGNORECASE),
    re.compile(
        r"^(?:E|ERR|ERROR|FATAL|npm ERR!|npm error|\[ERROR\])[: ] ?\S|^E {2,8}[\w.]{1,100}(?:Error|Exception)\b"
        r"|^[\w.:]{1,100}(?:Error|Exception|Exit)(?: \[\w{1,60}\])?(?::|$| \()|^\*\* \(\w"
        r"|^Uncaught |^Unhandled |^Exception in thread|: syntax error|\bpanicked at "
    ),
    re.compile(
        r"^E {2,8}\S|\w(?:Error|Exception)\b|\berror\b|\bfatal\b|\bassertion\b|\bexception\b|\babort", re.IGNORECASE
    ),
    re.compile(
        r"can ?not|can't|could not|couldn't|unable to|no such|not found|missing|undefined|invalid|unexpected"
        r"|unknown|unrecognized|unrecognised|unsupported|denied|refused|does not exist|doesn't exist|must be"
        r"|\brequire[sd]\b|inconsistent|not recognized|illegal|unterminated|mismatch|corrupt|don't know how"
        r"|\bis not an? |\bduplicate\b|Segmentation fault|Aborted$",
        re.IGNORECASE,
    ),
    re.compile(r"fail|wrong|broken|differ|not ok", re.IGNORECASE),
)
STRONG = len(_LEVELS) - 1


def is_summary(line: str) -> bool:
    """Whether the line is about an error and does not name its cause."""
    return _SUMMARY.search(line) is not None


def likelihood(line: str) -> int:
    """How likely the line names the cause of a failure: 0 for not at all, and more for more."""
    if is_summary(line):
        return 0
    level = next((len(_LEVELS) - level for level, words in enumerate(_LEVELS) if words.search(line)), 0)
    return max(level, STRONG) if _PLACE.search(line) else level
