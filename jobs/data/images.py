"""Opening pictures that strangers made: every failure is a BadSample, memory stays bounded."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from jobs.data.errors import BadSample

MAX_PIXELS = 40_000_000
MAX_SIDE_RATIO = 64
MAX_FILE = 256 << 20  # bytes
# Named one by one: Pillow's other plugins are rarely hardened, and EPS runs Ghostscript.
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")

# Pillow warns above half its own limit; ours is lower and is checked before anything is decoded.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Odd metadata of a picture that can be decoded: nothing that a user could act on.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")

_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)
# What Pillow's decoders raise on malformed bytes.
_CORRUPT = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
)


def resolve_inside(root: Path, name: str, key: str) -> Path:
    """The path of `name` inside the folder `root` (already resolved).

    Raises BadSample where it leaves the folder, through '..', an absolute path or a link.
    """
    try:
        path = (root / name).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise BadSample("image path unusable", key) from error
    if not path.is_relative_to(root):
        raise BadSample("image path leaves the image folder", key)
    return path


def open_image(path: Path, key: str) -> Image.Image:
    """The first frame as an RGB picture, upright, transparency laid on white.

    Raises BadSample: missing, a file of more than MAX_FILE bytes, not a supported picture (whatever
    its name says), corrupt or truncated, more than MAX_PIXELS (told by the header, nothing is
    decoded), or sides whose ratio is beyond MAX_SIDE_RATIO (resizing the short side would blow
    the long one up).
    """
    try:
        if not path.is_file():  # a folder, or a pipe that would block for ever
            raise BadSample("image missing", key)
        if path.stat().st_size > MAX_FILE:
            raise BadSample("image file too large", key)
    except OSError as error:
        raise BadSample("image unreadable", key) from error
    return _decode(path, key)


def decode_image(data: bytes, key: str) -> Image.Image:
    """Like `open_image`, from the bytes of a file."""
    if len(data) > MAX_FILE:
        raise BadSample("image file too large", key)
    return _decode(io.BytesIO(data), key)


def _decode(file: Path | BinaryIO, key: str) -> Image.Image:
    try:
        image = Image.open(file, formats=FORMATS)
    except _BOMB as error:
        raise BadSample("image too large", key) from error
    except UnidentifiedImageError as error:
        raise BadSample("not a supported image", key) from error
    except _CORRUPT as error:
        raise BadSample("image unreadable", key) from error
    with image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise BadSample("image too large", key)
        if max(width, height) > MAX_SIDE_RATIO * min(width, height):
            raise BadSample("image too narrow", key)
        try:
            return to_rgb(ImageOps.exif_transpose(image))
        except _BOMB as error:
            raise BadSample("image too large", key) from error
        except _CORRUPT as error:
            raise BadSample("image corrupt", key) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB from any mode: 16-bit grey keeps its upper 8 bits, transparency is laid on white.

    Raises ValueError for floating-point pixels, whose range nobody declares.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels")
    if image.mode.startswith("I"):
        grey = np.asarray(image).clip(0, 65535) >> 8
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        ground = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(ground, picture).convert("RGB")
    return image.convert("RGB")
