"""The same five captioned pictures as every kind of source; the fourth caption is empty."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from PIL import Image

CAPTIONS = ("a red one", "zwei grüne", "三", " ", "five")
BAD = 3


def colour(n):
    return (40 * n, 255 - 40 * n, 7)


def png(n):
    stream = io.BytesIO()
    Image.new("RGB", (5, 4), colour(n)).save(stream, "PNG")
    return stream.getvalue()


def pictures(folder):
    (folder / "pictures").mkdir(parents=True)
    for n in range(len(CAPTIONS)):
        (folder / "pictures" / f"{n}.png").write_bytes(png(n))


def jsonl(folder):
    pictures(folder)
    lines = [
        json.dumps({"image": f"pictures/{n}.png", "caption": caption}, ensure_ascii=n % 2 == 0)
        for n, caption in enumerate(CAPTIONS)
    ]
    (folder / "data.jsonl").write_text("\r\n".join(lines), encoding="utf-8")
    return {"path": "data.jsonl"}


def llava(folder):
    pictures(folder)
    entries = [
        {
            "image": f"{n}.png",
            "conversations": [
                {"from": "human", "value": "<image>\nDescribe."},
                {"from": "gpt", "value": caption},
            ],
        }
        for n, caption in enumerate(CAPTIONS)
    ]
    (folder / "data.json").write_text(
        json.dumps(entries, ensure_ascii=False, indent=1), encoding="utf-8"
    )
    return {"path": "data.json", "images": "pictures"}


def add_member(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def webdataset(folder):
    folder.mkdir(parents=True)
    for shard, numbers in (("a-00.tar", (0, 1, 2)), ("a-01.tar", (3, 4))):
        with tarfile.open(folder / shard, "w") as tar:
            add_member(tar, "README", b"not a sample")
            for n in numbers:
                add_member(tar, f"./x/{n:05}.PNG", png(n))
                if n % 2:
                    text = json.dumps({"caption": CAPTIONS[n]})
                    add_member(tar, f"./x/{n:05}.json", text.encode())
                else:
                    add_member(tar, f"./x/{n:05}.txt", CAPTIONS[n].encode())
    return {"path": "a-{00..01}.tar"}


def table():
    import datasets

    rows = {
        "picture": [{"bytes": png(n), "path": None} for n in range(len(CAPTIONS))],
        "text": list(CAPTIONS),
        "other": list(range(len(CAPTIONS))),
    }
    features = datasets.Features(
        {"picture": datasets.Image(), "text": datasets.Value("string"),
         "other": datasets.Value("int64")}
    )  # fmt: skip
    return datasets.Dataset.from_dict(rows, features=features)


def parquet(folder):
    (folder / "shards").mkdir(parents=True)
    rows = table()
    rows.select(range(2)).to_parquet(folder / "shards" / "0.parquet")
    rows.select(range(2, 5)).to_parquet(folder / "shards" / "1.parquet")
    return {"path": "shards", "image_field": "picture", "caption_field": "text"}


def datasets(folder):
    from datasets import DatasetDict

    DatasetDict({"train": table()}).save_to_disk(folder / "saved")
    return {"path": "saved", "image_field": "picture", "caption_field": "text"}


KINDS = {
    "jsonl": jsonl,
    "llava": llava,
    "webdataset": webdataset,
    "parquet": parquet,
    "datasets": datasets,
}


def settings_of(kind, folder, root=None):
    """Write kind `kind` below `folder`; its settings with paths below `root` (default: there)."""
    settings = KINDS[kind](folder)
    for field in ("path", "images"):
        if field in settings:
            settings[field] = f"{root or folder}/{settings[field]}"
    return {"kind": kind, **settings}


def upload(folder, root):
    """Copy a folder into fsspec's memory store."""
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in Path(folder).rglob("*"):
        if path.is_file():
            memory.pipe(f"{root}/{path.relative_to(folder).as_posix()}", path.read_bytes())
