"""Names of jobs, which are the names of their files without the ending."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

#: Most bytes of a name; disks take 255, and the ending and the names of parts need room.
LONGEST = 200
#: Most characters of the prompt in a name that is made from it, and of the digest behind them.
SHOWN, DIGITS = 60, 8
#: Names that Windows keeps for devices, and characters that it has no files with.
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')


def name_of(fields: Mapping[str, Any], copy_number: int = 0) -> str:
    """A name for a job that has none: the prompt's first words, and a digest of all that the list says of the job.

    It depends on nothing else, such as the place in the list or other jobs.

    Args:
        copy_number: of equal jobs, from 0.
    """
    text = json.dumps(fields, sort_keys=True, ensure_ascii=False, default=str)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]
    words = slug(str(fields.get("prompt", "")))
    return "-".join(filter(None, [words, digest, str(copy_number + 1) if copy_number else ""]))


def slug(prompt: str) -> str:
    """The first words of a prompt in letters and digits, of any script, joined by ``-``; empty where there are none."""
    joined = re.sub(r"[^\w]+", "-", unicodedata.normalize("NFC", prompt).lower()).strip("-_")
    while len(joined.encode()) > 3 * SHOWN or len(joined) > SHOWN:
        joined = joined[: min(SHOWN, len(joined) - 1)]
    return joined.strip("-_")


def problem(name: str) -> str | None:
    """Why a name can't be a file's; None if it can be on every system."""
    if not name or len(name.encode("utf-8", "surrogatepass")) > LONGEST:
        return f"it must have 1 to {LONGEST} bytes"
    if FORBIDDEN.search(name) or not name.isprintable():
        return 'it must have no control characters, and none of < > : " / \\ | ? *'
    if name[0] in ". " or name[-1] in ". " or RESERVED.fullmatch(name):
        return "it must not begin or end with a point or a blank, nor be a device's name on Windows"
    return None


def check_names(names: Sequence[str]) -> list[str]:
    """What is wrong with the names of a list's jobs, a sentence each: those that no file can have, or that two jobs have.

    Names that differ in upper and lower case only are the same to some disks, so they count as equal.
    """
    wrong, seen = [], dict[str, str]()
    for name in names:
        if why := problem(name):
            wrong.append(f"the name {name!r:.80} can't be a file's: {why}.")
        key = unicodedata.normalize("NFC", name).casefold()
        if key in seen:
            like = "" if seen[key] == name else f" (one of them as {seen[key]!r:.80})"
            wrong.append(f"two jobs have the name {name!r:.80}{like}: rename one of them.")
        seen[key] = name
    return wrong
