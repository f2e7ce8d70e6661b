"""How a command talks to its user: what it prints, and how it ends."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress

from .errors import InputError, VideoCrafterError, printable
from .memory import is_out_of_memory

#: Exit codes of a command that was stopped by Ctrl-C, and of one whose reader went away, as shells show them.
INTERRUPTED, READER_GONE = 128 + 2, 128 + 13


def say(text: str) -> None:
    """Print a line, with escapes in place of control characters, which a file's name or title could send to the terminal."""
    print(printable(text))


def complain(text: str) -> None:
    """Print an error; the text is printable."""
    print(f"error: {text}", file=sys.stderr)


def finish(command: Callable[[], None], in_options: Callable[[str], str] = str) -> int:
    """Run a command and print what went wrong in words for its user.

    Args:
        in_options: puts the command line's words in place of Python's in a message.

    Returns:
        The exit code: 0 for success, 1 for an error of the user or the system, 130 after Ctrl-C, 143 after SIGTERM in training, 141 if
        the output's reader went away. Any other exception is a bug and is not caught.
    """
    try:
        command()
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a reader that went away or a full disk is no traceback
    except VideoCrafterError as error:
        complain(in_options(str(error)) if isinstance(error, InputError) else str(error))
        return error.exit_code
    except BrokenPipeError:
        _discard_output()
        return READER_GONE
    except KeyboardInterrupt:
        complain("interrupted; files that were not complete are removed.")
        return INTERRUPTED
    except OSError as error:
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        complain(printable(f"{where}{error.strerror or error}. Check the path and the disk."))
        if error.filename is None:  # perhaps standard output's
            _discard_output()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        asked = re.search(r"allocate ([0-9.]+ ?[KMGT]?i?B|[0-9]+ bytes)", str(error))
        complain(
            f"there is too little memory{f' ({asked[1]} more were needed)' if asked else ''}. Make a shorter or smaller video (--frames, "
            "--height, --width), choose --dtype float16 or another --device, or close other programs."
        )
    else:
        return 0
    return 1


def accept_all_text() -> None:
    """Let standard output and error take any text: escapes stand for what their encoding lacks, such as in an ASCII console."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Let Python's own flush at the end of the process succeed."""
    with suppress(OSError, ValueError, AttributeError):  # where there is no such output
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def option(name: str) -> str:
    """The option for a setting's name: ``--playback-fps`` for ``playback_fps``."""
    return "--" + name.replace("_", "-")
