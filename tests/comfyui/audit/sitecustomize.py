"""Python imports this when it starts, where this folder is on PYTHONPATH: notes what the process connects to, writes and starts.

A line of JSON each in the file that AUDIT_LOG names: the event, what it was about, and whether the pack's code asked for it.
"""

import json
import os
import sys

LOG = os.open(os.environ["AUDIT_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
PLACES = tuple(os.environ["AUDIT_PLACES"].split(os.pathsep))
STARTING = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")
WATCHED = ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.bind", *STARTING)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGING = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
RELATIVE = ("os.mkdir", "os.rename", "os.remove", "os.rmdir")  # whose last argument may be a folder's descriptor


def asked_by_the_pack() -> bool:
    frame = sys._getframe(2)
    while frame:
        if frame.f_code.co_filename.startswith(PLACES):
            return True
        frame = frame.f_back
    return False


def note(event: str, arguments: tuple) -> None:
    if event == "open":
        path, _, flags = arguments
        if not isinstance(path, (str, bytes)) or not flags & WRITING or path == os.devnull:
            return
    elif event in CHANGING:
        path = arguments[1] if event == "os.rename" else arguments[0]
        folder = arguments[-1]
        if event in RELATIVE and folder >= 0:  # what is deleted with its folder is named within it
            path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))
    elif event in WATCHED:
        path = repr(arguments[1:] if event.startswith("socket") else arguments)[:300]
    else:
        return
    line = {"event": event, "what": os.fsdecode(path) if isinstance(path, (str, bytes)) else repr(path), "ours": asked_by_the_pack()}
    os.write(LOG, json.dumps(line).encode() + b"\n")


sys.addaudithook(note)
