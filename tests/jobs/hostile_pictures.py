"""Files that stand where pictures should: broken, mislabelled, monstrous, or merely unusual.

PICTURES has the bytes of each (made when asked for) and the reason for which it is skipped; None
where it is unusual but whole, and must be read.
"""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from functools import lru_cache

import numpy as np
from PIL import Image, PngImagePlugin

CORRUPT = ("image corrupt", "image unreadable")
UNKNOWN = ("not a supported image",)
LARGE = ("image too large",)
BOMB = 600 << 20  # bytes


def noise(width=40, height=30, mode="RGB"):
    shape = (height, width, len(mode)) if len(mode) > 1 else (height, width)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(pixels, mode) if mode == "CMYK" else Image.fromarray(pixels)


def saved(picture, kind, **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def half(kind):
    data = saved(noise(), kind)
    return data[: len(data) // 2]


def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(width, height, *chunks, depth=8, colour=2):
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join([chunk(b"IHDR", head), *chunks, chunk(b"IEND", b"")])


@lru_cache
def zeros(size):
    """`size` zeros, compressed without ever holding them."""
    packer = zlib.compressobj(1)
    block = bytes(1 << 20)
    parts = [packer.compress(block) for _ in range(size >> 20)]
    return b"".join([*parts, packer.flush()])


def monster_png():
    """300 megapixels that really are there: 37 MB of ones and zeros in a few kilobytes."""
    side = 17_321
    return png(side, side, chunk(b"IDAT", zeros(side * (side // 8 + 2))), depth=1, colour=0)


def zip_bomb():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(4):
            archive.writestr(f"{n}.png", bytes(20 << 20))
    return stream.getvalue()


def wrong_checksum():
    data = bytearray(saved(noise(), "PNG"))
    data[29] ^= 0xFF  # of the header
    return bytes(data)


def frames(kind, count, **options):
    pictures = [Image.new("RGB", (20, 20), (n % 256, 0, 0)) for n in range(count)]
    return saved(pictures[0], kind, save_all=True, append_images=pictures[1:], **options)


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(noise(), "JPEG", exif=exif)


def tiff(*entries):
    """A TIFF of one directory: (tag, type, count, value) each."""
    body = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    return body + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)


def circle_tiff():
    """A directory whose next directory is itself."""
    whole = tiff((256, 4, 1, 8), (257, 4, 1, 8))
    return whole[:-4] + struct.pack("<I", 8)


def jpeg_of(width, height):
    data = bytearray(saved(noise(), "JPEG"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def webp_of(side):
    canvas = (side - 1).to_bytes(3, "little") * 2
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + canvas
    return b"RIFF" + struct.pack("<I", len(body)) + body


def text_bomb():
    return png(8, 8, chunk(b"zTXt", b"c\0\0" + zeros(BOMB)), chunk(b"IDAT", zeros(0)))


def profile_bomb():
    pixels = zlib.compress(bytes(8 * 25))
    return png(8, 8, chunk(b"iCCP", b"p\0\0" + zeros(BOMB)), chunk(b"IDAT", pixels))


def pixel_bomb():
    """8 x 8 pixels whose data unpacks to 600 MB; what is beyond the picture is never unpacked."""
    return png(8, 8, chunk(b"IDAT", zeros(BOMB)))


def many_chunks():
    pixels = zlib.compress(bytes(8 * 25))
    return png(8, 8, *[chunk(b"tEXt", b"k\0v")] * 20_000, chunk(b"IDAT", pixels))


def sixteen_bit():
    return Image.fromarray(np.full((9, 9), 40_000, np.uint16))


def text_flood():
    info = PngImagePlugin.PngInfo()
    for n in range(80):
        info.add_text(f"k{n}", "x" * 900_000, zip=True)
    return saved(noise(), "PNG", pnginfo=info)


SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>'
PICTURES = {
    **{f"half.{kind}": (lambda kind=kind: half(kind), CORRUPT)
       for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")},
    **{f"{kind}-as.txt": (lambda kind=kind: saved(noise(), kind), None)
       for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")},
    **{f"exif-{turn}.jpg": (lambda turn=turn: turned(turn), None) for turn in (*range(1, 9), 99)},
    "empty.png": (lambda: b"", UNKNOWN),
    "text.jpg": (lambda: b"this is no picture", UNKNOWN),
    "page.jpg": (lambda: b"<!doctype html><title>404</title>", UNKNOWN),
    "svg.png": (lambda: SVG, UNKNOWN),
    "svgz.png": (lambda: gzip.compress(SVG), UNKNOWN),
    "pdf.jpg": (lambda: b"%PDF-1.7\n1 0 obj <<>> endobj", UNKNOWN),
    "eps.png": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", UNKNOWN),
    "ico.png": (lambda: saved(noise(16, 16), "ICO"), UNKNOWN),
    "jp2.jpg": (lambda: saved(noise(), "JPEG2000"), UNKNOWN),
    "psd.png": (lambda: b"8BPS\0\1" + bytes(6) + b"\0\3" + b"\0\0\0\5" * 2 + b"\0\10\0\3", UNKNOWN),
    "zip-bomb.png": (zip_bomb, UNKNOWN),
    "gzip-bomb.png": (lambda: gzip.compress(bytes(50 << 20)), UNKNOWN),
    "zeros.png": (lambda: bytes(1 << 20), UNKNOWN),
    "random.png": (lambda: np.random.default_rng(1).bytes(10_000), UNKNOWN),
    "magic-only.png": (lambda: b"\x89PNG\r\n\x1a\n", UNKNOWN + CORRUPT),
    "start-only.jpg": (lambda: b"\xff\xd8\xff\xe0", UNKNOWN + CORRUPT),
    "checksum.png": (wrong_checksum, UNKNOWN + CORRUPT),
    "no-pixels.png": (lambda: png(50, 50), CORRUPT),
    "no-size.png": (lambda: png(0, 0), UNKNOWN + CORRUPT),
    "pixel-bomb.png": (pixel_bomb, (*CORRUPT, None)),
    "text-bomb.png": (text_bomb, CORRUPT),
    "text-flood.png": (text_flood, (*CORRUPT, None)),
    "profile-bomb.png": (profile_bomb, (*CORRUPT, None)),
    "many-chunks.png": (many_chunks, None),
    "monster.png": (monster_png, LARGE),
    "promise.png": (lambda: png(60_000, 60_000, chunk(b"IDAT", zeros(0))), LARGE),
    "promise.gif": (lambda: b"GIF89a" + b"\xff" * 4 + bytes(3) + b"," + bytes(4) + b"\xff" * 4
                    + b"\0\2\0;", LARGE + CORRUPT),
    "promise.jpg": (lambda: jpeg_of(65_000, 65_000), LARGE),
    "promise.webp": (lambda: webp_of(1 << 24), UNKNOWN + CORRUPT + LARGE),
    "promise.ppm": (lambda: b"P6 99999 99999 255\n", LARGE),
    "promise.bmp": (lambda: b"BM" + bytes(8) + struct.pack("<IIiiHHI", 54, 40, 99_999, 99_999, 1,
                    24, 0) + bytes(20), LARGE),
    "promise.tiff": (lambda: tiff((256, 4, 1, 99_999), (257, 4, 1, 99_999), (258, 3, 1, 8),
                     (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 9)), LARGE),
    "strips.tiff": (lambda: tiff((256, 4, 1, 8), (257, 4, 1, 8), (273, 4, 1 << 30, 8)),
                    UNKNOWN + CORRUPT),
    "circle.tiff": (circle_tiff, UNKNOWN + CORRUPT),
    "overlong.ppm": (lambda: b"P3 " + b"9" * 100_000, UNKNOWN + CORRUPT),
    "animated.gif": (lambda: frames("GIF", 300), None),
    "animated.png": (lambda: frames("PNG", 20), None),
    "animated.webp": (lambda: frames("WEBP", 20), None),
    "pages.tiff": (lambda: frames("TIFF", 20), None),
    "cmyk.jpg": (lambda: saved(noise(mode="CMYK"), "JPEG"), None),
    "cmyk.tiff": (lambda: saved(noise(mode="CMYK"), "TIFF"), None),
    "sixteen.png": (lambda: saved(sixteen_bit(), "PNG"), None),
    "sixteen.tiff": (lambda: saved(sixteen_bit(), "TIFF"), None),
    "float.tiff": (lambda: saved(Image.new("F", (9, 9), 0.5), "TIFF"), CORRUPT),
    "bilevel.png": (lambda: saved(Image.new("1", (9, 9), 1), "PNG"), None),
    "palette.png": (lambda: saved(noise().convert("P"), "PNG", transparency=3), None),
    "alpha.png": (lambda: saved(noise(mode="RGBA"), "PNG"), None),
    "progressive.jpg": (lambda: saved(noise(), "JPEG", progressive=True), None),
    "tiny.png": (lambda: saved(Image.new("RGB", (1, 1)), "PNG"), None),
    "ribbon.png": (lambda: saved(Image.new("RGB", (9000, 3)), "PNG"), ("image too narrow",)),
}  # fmt: skip
