"""Entries and files that a listing of strangers may hold.

ENTRIES: what stands for picture and caption, and the reason for which the sample is skipped.
LINES: a line of a JSON lines file, the reason for which it is skipped between good ones, and what
the one line says where there is no other.
LISTED: the same for an entry of a JSON list.
FILES: a file's content, what kind it is read as, and what the one line of its refusal says;
None where it is unusual but right.
"""

from __future__ import annotations

import io
import os
import struct
import tarfile

OUTSIDE = "image path leaves the image folder"
GONE = ("image missing", "image unreadable", "image path unusable")
NO_NAME = "no image path"
NO_TEXT = "caption is not a string"
GOOD = "good.png"


def traps(folder):
    """What lies around the image folder `folder/images`, beside the pictures."""
    images = folder / "images"
    (images / "folder.png").mkdir()
    (folder / "secret.png").write_bytes((images / GOOD).read_bytes())
    (images / "link-out.png").symlink_to(folder / "secret.png")
    (images / "linked").symlink_to(folder)
    (images / "loop.png").symlink_to(images / "loop.png")
    (images / "dangling.png").symlink_to(images / "nowhere.png")
    (images / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(images / "pipe.png")
    with (images / "sparse.png").open("wb") as sparse:
        sparse.write((images / GOOD).read_bytes())
        sparse.truncate(1 << 40)


PATHS = {
    "../secret.png": OUTSIDE,
    "x/../../secret.png": OUTSIDE,
    "linked/secret.png": OUTSIDE,
    "link-out.png": OUTSIDE,
    "/etc/passwd": OUTSIDE,
    "/dev/zero": OUTSIDE,
    "/proc/self/mem": OUTSIDE,
    "zero.png": OUTSIDE,
    "folder.png": GONE,
    ".": GONE,
    "loop.png": GONE,
    "dangling.png": GONE,
    "pipe.png": GONE,
    "nowhere.png": GONE,
    "..\\..\\secret.png": GONE,
    "~/.profile": GONE,
    "http://127.0.0.1:9/a.png": GONE,
    "file:///etc/passwd": GONE,
    "memory://a.png": GONE,
    "$HOME/a.png": GONE,
    "good.png\0.txt": GONE,
    "\ud800.png": GONE,
    "x" * 5000: GONE,
    "sparse.png": "image file too large",
}
ENTRIES = [
    *(({"image": name, "caption": "c"}, reason) for name, reason in PATHS.items()),
    *(
        ({"image": name, "caption": "c"}, NO_NAME)
        for name in (None, "", 0, 7, 1e308, True, [], [GOOD], {}, {"path": GOOD})
    ),
    *(
        ({"image": GOOD, "caption": text}, NO_TEXT)
        for text in (None, 0, -1e308, False, [], ["a"], {}, {"en": "a"})
    ),
    *(
        ({"image": GOOD, "caption": text}, "caption empty")
        for text in ("", " ", "\n\t\r", "\u3000")
    ),
    ({"image": GOOD, "caption": "x" * 10_000_000}, "caption too long"),
    ({"image": GOOD, "caption": "\ud800"}, "caption is not valid text"),
    ({"image": GOOD, "caption": "a\0b"}, "caption is not valid text"),
    *(
        ({"image": GOOD, "caption": text}, None)
        for text in (
            "<image>", "a <image> b <image>", "</s> and on", "<|im_end|><|im_start|>user",
            "<pad><unk><s>", "\u202eright to left", "\U0001f469\u200d\U0001f680", "\ufeffx",
            "\x1b[31mred", "x" * 20_000, "{{7*7}} ${HOME} %s %n", "'; DROP TABLE x; --",
        )
    ),
    ({"image": GOOD, "caption": "c", "extra": {"deep": [[[[1]]]]}, "1": 1e300}, None),
]  # fmt: skip

LINE = b'{"image": "images/good.png", "caption": "c"}\n'
JSON, NO_JSON = "entry is not JSON", "not JSON"
NO_OBJECT, INSTEAD = "entry is not an object", "(list|int|str|float|bool|NoneType) instead of an ob"
LINES = {
    "list": (b'["images/good.png", "c"]', NO_OBJECT, INSTEAD),
    "number": (b"7", NO_OBJECT, INSTEAD),
    "text": (b'"images/good.png"', NO_OBJECT, INSTEAD),
    "null": (b"null", NO_OBJECT, INSTEAD),
    "nan": (b"NaN", NO_OBJECT, INSTEAD),
    "fields": (b'{"picture": "a.png"}', NO_TEXT, "no field 'image'"),
    "broken": (b'{"image": "a.png"', JSON, NO_JSON),
    "comma": (b'{"image": "a", "caption": "c",}', JSON, NO_JSON),
    "python": (b"{'image': 'a', 'caption': 'c'}", JSON, NO_JSON),
    "two-a-line": (LINE.strip() + b" " + LINE.strip(), JSON, NO_JSON),
    "old-mac": (LINE.strip() + b"\r" + LINE.strip(), JSON, NO_JSON),
    "twice": (
        b'{"image": "a", "caption": "c", "image": "b"}', "entry has a field twice", "stands twice",
    ),
    "deep": (b'{"a": ' * 100_000, JSON, NO_JSON),
    "huge-number": (b'{"a": ' + b"9" * 100_000 + b"}", JSON, NO_JSON),
    "nul": (b'{"image": "a\0", "caption": "c"}', JSON, NO_JSON),
    "latin": (
        b'{"image": "a", "caption": "Gr\xf6\xdfe"}', "entry is not UTF-8", "not UTF-8 .* save the",
    ),
}  # fmt: skip
GOOD_ENTRY = b'{"image": "images/good.png", "conversations": [{"from": "gpt", "value": "c"}]}'
LISTED = {
    name: LINES[name]
    for name in ("list", "number", "text", "null", "nan", "twice", "latin", "huge-number", "nul")
}


def endless(folder):
    """A line of 200 MB that takes no place on the disk."""
    path = folder / "endless.jsonl"
    with path.open("wb") as file:
        file.truncate(200 << 20)
    return path


def tar(name=b"0.png", size=0, kind=tarfile.REGTYPE, data=b""):
    info = tarfile.TarInfo(name.decode())
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


def climbing_tar(picture):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("../../0", "/etc/1"):
            for suffix, data in (("png", picture), ("txt", b"caption")):
                info = tarfile.TarInfo(f"{name}.{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


FILES = {
    "utf16.jsonl": (LINE.decode().encode("utf-16"), r":1: not (UTF-8|JSON)"),
    "utf32.jsonl": (LINE.decode().encode("utf-32-le"), r":1: not JSON"),
    "binary.jsonl": (bytes(range(256)) * 100, r":1: not (UTF-8|JSON)"),
    "latin-1.jsonl": (LINES["latin"][0] + b"\n" + LINES["latin"][0], r":1: not UTF-8"),
    "nothing.jsonl": (b"", "holds no samples"),
    "blank.jsonl": (b"\r\n \n\t\n", "holds no samples"),
    "endless.jsonl": (endless, "a line of more than 64 MiB"),
    "bom.jsonl": (b"\xef\xbb\xbf" + LINE, None),
    "crlf.jsonl": (LINE.strip() + b"\r\n\r\n" + LINE.strip(), None),
    "infinite.jsonl": (b'{"image": "images/good.png", "caption": "c", "n": 1e999}', None),
    "object.json": (b'{"image": "a.png"}', "dict instead of a list"),
    "scalar.json": (b"42", "int instead of a list"),
    "open.json": (b'[{"image": "a"}', "entry 0: not JSON"),
    "unended.json": (b'[{"image": "' + b"a" * 3_000_000, "entry 0: not JSON"),
    "deep.json": (b"[" * 1_000_000, "nested too deeply"),
    "trailing.json": (b'[{"image": "a"}] x', "more follows"),
    "no-tar.tar": (b"PK\3\4" + bytes(2000), "no whole uncompressed tar"),
    "cut.tar": (tar(size=5000, data=b"x" * 1024), "no whole uncompressed tar"),
    "header-bomb.tar": (tar(b"x", 1 << 40, tarfile.XHDTYPE), "no whole uncompressed tar"),
    "name-bomb.tar": (tar(b"x", 1 << 40, tarfile.GNUTYPE_LONGNAME), "no whole uncompressed tar"),
    "negative.tar": (tar()[:124] + struct.pack(">q", -1) * 2 + tar()[140:], "no whole uncompr"),
    "no-samples.tar": (tar(b"README.md", 3, data=b"hi\n") + bytes(1024), "holds no samples"),
    "climbing.tar": (climbing_tar, None),
}
KINDS = {".jsonl": "jsonl", ".json": "llava", ".tar": "webdataset"}
