"""The likelihood that a line is a tool's error message, for tools without a pattern in reason_patterns.py.

The expressions are searched in a line of bounded length, and none nests one repetition in another.
"""

import re

#: Lines that are about an error, and do not name it.
_SUMMARY = re.compile(
    r"originates from a subprocess|complete log of this run|returned \d+ exit status|linker command failed"
    r"|returned a non-zero|exit status \d+$|previous errors|due to compilation errors|compilation aborted"
    r"|\b(?:0|no) (?:errors?|failures?|failed)\b|\berrors?[=:] ?0\b|\bfailures?[=:] ?0\b"
    r"|^make(?:\[\d+\])?: |BUILD FAILED|usage: |ELIFECYCLE|^Node\.js v|-Werror\b.*(?:gcc|cc) "
    r"|^\s*(?:note|help|hint|warning)\b|\bwarning: |ABORTING$",
    re.IGNORECASE,
)
#: From the most likely on.
_LEVELS = (
    re.compile(r"(?:^|[\s:\]])(?:fatal|error|panic)(?:\[\w{1,20}\]| \w{1,20})?(?:: | - )\S", re.IGNORECASE),
    re.compile(
        r"^(?:E|ERR|ERROR|FATAL|npm ERR!|npm error|\[ERROR\])[: ] ?\S|^[\w.:]{1,100}(?:Error|Exception)(?::|$| \()"
        r"|^(?:npm error|npm ERR!) \S|^Uncaught |^Unhandled |^Exception in thread|: syntax error"
    ),
    re.compile(r"\w(?:Error|Exception)\b|\berror\b|\bfatal\b|\bassertion\b|\bexception\b|\babort", re.IGNORECASE),
    re.compile(
        r"can ?not|can't|could not|couldn't|unable to|no such|not found|missing|undefined|invalid|unexpected"
        r"|unknown|unrecognized|unrecognised|unsupported|denied|refused|does not exist|doesn't exist|must be"
        r"|is required|inconsistent|not recognized|illegal|unterminated|mismatch|corrupt|don't know how",
        re.IGNORECASE,
    ),
    re.compile(r"fail|wrong|broken|differ|not ok", re.IGNORECASE),
)


def likelihood(line: str) -> int:
    """How likely the line names the cause of a failure: 0 for not at all, and more for more."""
    if _SUMMARY.search(line):
        return 0
    return next((len(_LEVELS) - level for level, words in enumerate(_LEVELS) if words.search(line)), 0)
