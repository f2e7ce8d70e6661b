"""What a file is that is no checkpoint, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable


def _is_text(head: bytes) -> bool:
    return all(byte >= 0x20 or byte in b"\t\r\n\f" for byte in head)


# The first bytes of a pickle of 0x1950A86A20F9469CFC6C, with which torch.save began its files before version 1.6.
_OLD_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."

_FOREIGN: tuple[tuple[Callable[[bytes], bool], str], ...] = (
    (lambda head: not head, "is empty (0 bytes). Download it again"),
    (
        lambda head: head.startswith(b"version https://git-lfs"),
        "is a git-lfs pointer, not the file itself. Fetch it with `git lfs pull`, or download it from its page",
    ),
    (
        lambda head: head.startswith(_OLD_TORCH),
        "was written by torch.save before torch 1.6, in a form that is not read here. If you trust it, open it with a recent torch "
        "and save it again: torch.save(torch.load(OLD, map_location='cpu', weights_only=True), NEW)",
    ),
    (
        lambda head: head.startswith(b"\x80"),
        "is a Python pickle, but not one that torch.save wrote. Its tensors can't be taken out safely: get the model as .safetensors, "
        "or as its authors published it",
    ),
    (
        lambda head: head.lstrip()[:1] == b"<" and _is_text(head),
        "is a web page (HTML) saved under this name, as happens when a download needs a login or the link leads to a page. Download "
        "it again with the page's download button",
    ),
    (
        lambda head: head.lstrip()[:1] == b"{" and b'"weight_map"' in head,
        "is the index of a model in several parts (shards). Get the model as one file, or join the parts and load the result",
    ),
    (
        lambda head: head.lstrip()[:1] in (b"{", b"[") and _is_text(head),
        "is JSON text, perhaps a server's error or an index of parts. Download the weights themselves",
    ),
    (lambda head: head.startswith(b"GGUF"), "is a GGUF file, whose weights are quantized. Get it as .safetensors or .ckpt"),
    (lambda head: head.startswith(b"PK"), "is an empty zip. Download it again"),
    (
        lambda head: head[257:262] == b"ustar",
        "is a tar archive. If there is a checkpoint in it, unpack it. torch.save wrote such files before 2017: if you trust it, open "
        "it with torch.load and save it again with torch.save",
    ),
    (
        lambda head: head.startswith((b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")),
        "is a compressed archive. Unpack it and use the checkpoint inside",
    ),
    (lambda head: head.startswith(b"\x89HDF"), "is an HDF5 file (Keras). Get the model as .safetensors or .ckpt"),
    (
        lambda head: not any(head),
        "begins with nothing but zeros, as a broken download does. Download it again",
    ),
)


def foreign(head: bytes, size: int) -> str:
    """The message for a file that is not a checkpoint."""
    for matches, answer in _FOREIGN:
        if matches(head):
            return answer
    possible = "possible are .safetensors, and .ckpt, .pt, .pth and .bin as torch.save writes them"
    return f"is not a checkpoint ({size} bytes, beginning with {head[:16]!r}); {possible}. Check where it was downloaded from"
