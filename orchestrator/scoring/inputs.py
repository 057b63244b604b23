"""The evaluation pairs of `mirsweep score`: which pictures meet which texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mir.errors import DataError
from mir.pairs import pairs_digest

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
TEXTS = (".story", ".txt")


@dataclass(frozen=True, kw_only=True)
class EvaluationPairs:
    """The n-th picture belongs to the n-th text. digest: hash of files and texts, in order."""

    images: tuple[Path, ...]
    texts: tuple[str, ...]
    digest: str

    def picture(self, number: int) -> Image:
        """One picture in RGB. Raises DataError that names the file if it cannot be read."""
        from PIL import Image
        from PIL.Image import DecompressionBombError

        path = self.images[number]
        try:
            with Image.open(path) as image:
                return image.convert("RGB")
        except (OSError, ValueError, EOFError, SyntaxError, DecompressionBombError) as error:
            raise DataError(
                f"--images: {path}: not a picture that can be read ({error}); replace or remove it"
            ) from error


def choose_pairs(images: Path, texts: Path, count: int) -> EvaluationPairs:
    """The first `count` pictures and texts, each in order: a folder's by path, a list's as listed.

    images: a folder (searched with its subfolders, hidden files left out) or a file with one
        picture's path a line, relative to that file. texts: a folder of .txt or .story files (a
        story is what stands before its first @highlight), or a file with one text a line; empty
        texts are passed over. Raises DataError if something is missing.
    """
    pictures = _pictures(images)[:count]
    if len(pictures) < count:
        raise _too_few("--images", images, "pictures", len(pictures), count, PICTURES)
    words = _texts(texts, count)
    if len(words) < count:
        raise _too_few("--texts", texts, "texts", len(words), count, TEXTS)
    for path in pictures:
        if not path.is_file():
            raise DataError(
                f"--images: {images} lists {path}, which does not exist; correct the list (its "
                "paths start at its own folder)"
            )
    return EvaluationPairs(
        images=tuple(pictures),
        texts=tuple(words),
        digest=pairs_digest((path.read_bytes() for path in pictures), words),
    )


def _too_few(
    option: str, place: Path, what: str, found: int, count: int, endings: tuple[str, ...]
) -> DataError:
    kinds = f" ({', '.join(endings)} count)" if place.is_dir() else ""
    remedy = f"add some{kinds}" if found < 2 else f"add some, or use --pairs {found}"
    return DataError(f"{option}: {place} holds {found} {what}, {count} are asked for; {remedy}")


def _pictures(place: Path) -> list[Path]:
    if place.is_dir():
        return _files(place, PICTURES)
    return [place.parent / line for line in _lines("--images", place)]


def _texts(place: Path, count: int) -> list[str]:
    if not place.is_dir():
        return _lines("--texts", place)[:count]
    found = []
    for path in _files(place, TEXTS):
        text = _read("--texts", path)
        if path.suffix.lower() == ".story":
            text = text.partition("@highlight")[0]
        if text.strip():
            found.append(text.strip())
        if len(found) == count:
            break
    return found


def _files(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """Hidden files are left out: macOS keeps a `._name` beside each file on foreign disks."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in endings
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _lines(option: str, path: Path) -> list[str]:
    return [line.strip() for line in _read(option, path).split("\n") if line.strip()]


def _read(option: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{option}: {path} does not exist; give a folder or a list file") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{option}: {path} is not UTF-8 text ({error.reason} at byte {error.start}); give a "
            "folder or a list file, and save texts as UTF-8"
        ) from error
    except OSError as error:
        raise DataError(f"{option}: {path} cannot be read ({error.strerror})") from error
