"""Pictures that strangers made: opened as RGB, or refused with a reason, never a crash."""

from __future__ import annotations

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from jobs.data.errors import BadSample
from jobs.data.images import MAX_PIXELS, open_image, resolve_inside

RED, WHITE = (255, 0, 0), (255, 255, 255)


def reason_of(path):
    with pytest.raises(BadSample) as caught:
        open_image(path, "key 7")
    assert caught.value.key == "key 7"
    return caught.value.reason


def png_header(width, height):
    """A PNG whose header promises pixels that are not there."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "YCbCr", "LA", "RGBA", "HSV"])
def test_every_usual_mode_becomes_rgb(tmp_path, mode):
    suffix = {"CMYK": "tiff", "YCbCr": "jpg"}.get(mode, "png")
    picture = Image.new("RGB", (6, 5), WHITE).convert("L" if mode == "LA" else "RGB").convert(mode)
    if mode == "HSV":
        picture = picture.convert("RGB")
    picture.save(tmp_path / f"a.{suffix}")
    opened = open_image(tmp_path / f"a.{suffix}", "k")
    assert (opened.mode, opened.size) == ("RGB", (6, 5))
    assert np.asarray(opened).min() > 250


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(tmp_path, mode):
    picture = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    picture.putpixel((0, 0), (0, 0, 0, 255))
    picture.convert(mode).save(tmp_path / "a.png")
    opened = open_image(tmp_path / "a.png", "k")
    assert opened.getpixel((3, 3)) == WHITE
    assert max(opened.getpixel((0, 0))) < 10


def test_sixteen_bit_grey_keeps_its_upper_bits(tmp_path):
    values = np.array([[0, 256], [32768, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    opened = np.asarray(open_image(tmp_path / "a.png", "k"))
    assert opened[..., 0].tolist() == [[0, 1], [128, 255]]


def test_floating_point_pixels_are_refused(tmp_path):
    Image.new("F", (4, 4), 0.5).save(tmp_path / "a.tiff")
    assert reason_of(tmp_path / "a.tiff") == "image corrupt"


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 4), c) for c in (RED, (0, 255, 0), (0, 0, 255))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert open_image(tmp_path / "a.gif", "k").getpixel((1, 1)) == RED


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert open_image(tmp_path / "a.jpg", "k").size == ((8, 4) if orientation < 5 else (4, 8))


def test_a_bomb_is_refused_by_its_header_alone(tmp_path):
    for side in (7000, 17_320, 60_000):  # 49 million, 300 million, 3.6 billion pixels
        (tmp_path / "a.png").write_bytes(png_header(side, side))
        assert side * side > MAX_PIXELS
        assert reason_of(tmp_path / "a.png") == "image too large"


def test_a_ribbon_is_refused(tmp_path):
    Image.new("RGB", (10_000, 1)).save(tmp_path / "a.png")
    assert reason_of(tmp_path / "a.png") == "image too narrow"


def test_pixels_that_never_come_are_corrupt(tmp_path):
    (tmp_path / "a.png").write_bytes(png_header(500, 500))
    assert reason_of(tmp_path / "a.png") == "image corrupt"


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")
@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "bmp", "tiff"])
def test_no_truncation_ever_escapes(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    whole, part = tmp_path / f"a.{suffix}", tmp_path / f"part.{suffix}"
    Image.fromarray(noise).save(whole)
    data = whole.read_bytes()
    refused = 0
    for length in range(0, len(data), max(1, len(data) // 40)):
        part.write_bytes(data[:length])
        try:
            open_image(part, "k")
        except BadSample:
            refused += 1
    assert refused >= 30


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")
@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "tiff"])
def test_no_flipped_byte_ever_escapes(tmp_path, suffix):
    rng = np.random.default_rng(1)
    Image.new("RGB", (16, 16), RED).save(tmp_path / f"a.{suffix}")
    data = bytearray((tmp_path / f"a.{suffix}").read_bytes())
    for _ in range(150):
        broken = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            broken[place] = rng.integers(0, 256)
        (tmp_path / "b").write_bytes(broken)
        try:
            assert open_image(tmp_path / "b", "k").mode == "RGB"
        except BadSample as bad:
            assert bad.reason.startswith(("image", "not a supported"))


@pytest.mark.parametrize(
    "content",
    [b"", b"\x89PNG", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe-3.0 EPSF"],
)
def test_what_is_no_picture_is_refused_whatever_its_name(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    assert reason_of(tmp_path / "a.png") == "not a supported image"


def test_missing_files_folders_and_pipes_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("none.png", "pipe.png", "folder.png", "x" * 5000):
        assert reason_of(tmp_path / name) in ("image missing", "image unreadable")


@pytest.mark.parametrize(
    "name", ["../secret.png", "a/../../secret.png", "/etc/passwd", "link.png", "linked/b.png"]
)
def test_a_path_that_leaves_the_folder_is_refused(tmp_path, name):
    root = tmp_path / "images"
    root.mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "secret.png")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "linked").symlink_to(tmp_path)
    with pytest.raises(BadSample, match="leaves the image folder"):
        resolve_inside(root.resolve(), name, "k")


@pytest.mark.parametrize("name", ["a\0b.png", "\ud800.png"])
def test_a_path_that_is_no_path_is_refused(tmp_path, name):
    with pytest.raises(BadSample):
        open_image(resolve_inside(tmp_path.resolve(), name, "k"), "k")
