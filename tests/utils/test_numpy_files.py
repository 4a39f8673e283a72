"""NumPy's files that are damaged, hostile or of another kind than their name says."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from utils.numpy_files import map_npy, read_npz
from utils.user_error import UserError

ARRAY = np.random.default_rng(0).integers(0, 256, (5, 8, 9), dtype=np.uint8)


def npy(shape: str, content: bytes = b"", descr: str = "|u1") -> bytes:
    """An .npy whose header says what it likes."""
    file = io.BytesIO()
    np.save(file, np.zeros(1, np.uint8))
    head = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return file.getvalue()[:8] + len(head).to_bytes(2, "little") + head + content


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_damage_is_refused_or_harmless(tmp_path: Path, save) -> None:
    path, rng = tmp_path / "x.npz", np.random.default_rng(1)
    save(path, a=ARRAY, b=np.asfortranarray(ARRAY), c=7)
    content = path.read_bytes()
    found = read_npz(path, ["a", "b"])
    assert found.keys() == {"a", "b"} and all((array == ARRAY).all() for array in found.values())
    damaged = [content[:size] for size in (0, 1, 30, len(content) // 2, len(content) - 1)]
    for bit in rng.integers(8 * len(content), size=120):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << (bit % 8)
        damaged.append(bytes(flipped))
    refused = 0
    for bad in damaged:
        path.write_bytes(bad)
        try:
            found = read_npz(path)
        except UserError as error:
            assert "x.npz" in str(error)
            refused += 1
        else:
            assert (found["a"] == ARRAY).all() and (found["b"] == ARRAY).all() and found["c"] == 7
    assert refused > 60


@pytest.mark.parametrize(
    "content",
    [
        npy("(1000000, 1000000, 1000)"),
        npy("(4,)", b"abc"),
        npy("(-4,)"),
        npy("(2,)", bytes(16), "|O"),
        b"",
        b"text",
        b"PK",
    ],
)
def test_headers_that_do_not_agree_with_the_file(tmp_path: Path, content: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", content)
    with pytest.raises(UserError, match=r"x\.npz: no readable \.npz"):
        read_npz(tmp_path / "x.npz")
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.npy: cannot be read as a numpy file"):
        map_npy(tmp_path / "x.npy")


def test_another_kind_and_encryption(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", ARRAY)
    assert (map_npy(tmp_path / "x.npy") == ARRAY).all()
    (tmp_path / "x.npz").write_bytes((tmp_path / "x.npy").read_bytes())
    with pytest.raises(UserError, match="not a zip file"):
        read_npz(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", a=ARRAY)
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[6] |= 1  # the bit of encryption, in the local header and in the directory
    content[content.rfind(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(UserError, match="a is encrypted"):
        read_npz(tmp_path / "x.npz")
    with pytest.raises(UserError, match="it has no b"):
        read_npz(tmp_path / "x.npz", ["b"])
    for name in ("absent", "."):
        with pytest.raises(UserError):
            read_npz(tmp_path / name)
