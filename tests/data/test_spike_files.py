"""Where the spikes of a clip are looked for."""

from pathlib import Path

from data.spike_files import clip_folder


def test_the_only_clips_spikes_may_lie_beside_its_frames(tmp_path: Path) -> None:
    """As `svrt spikes simulate` writes them: clip.dat, blur/, sharp/."""
    root = tmp_path / "mine"
    (root / "blur").mkdir(parents=True)
    assert clip_folder(root, "blur", single=True) == root / "blur"  # no spikes anywhere: the message names this one
    (root / "clip.dat").touch()
    assert clip_folder(root, "blur", single=True) == root
    assert clip_folder(root / "clip.dat", "blur", single=True) == root / "clip.dat"
    assert clip_folder(root, "blur", single=False) == root / "blur"
    (root / "blur" / "spike").mkdir()
    assert clip_folder(root, "blur", single=True) == root / "blur"
