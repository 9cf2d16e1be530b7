"""Music in place of a clip's own sound: in time, as long as the pictures, copied where that can be."""

from fractions import Fraction

import av
import numpy as np
import pytest
from clicks import RATE, click_times, click_track, heard, spans, write_sound
from media import make_video, packets_of, picture

from nst_video.errors import InputError
from nst_video.media.probe import probe
from nst_video.media.soundtrack import Heard, Song, survey_song
from nst_video.media.video import VideoWriter

TIMES = tuple(0.25 + 0.5 * number for number in range(8))
DAY = Fraction(86400)


@pytest.fixture
def clip(tmp_path):
    """60 frames at 25 frames/s with sound of their own."""
    return make_video(tmp_path / "in.mp4", frames=60, sound="aac")


def write(clip, target, song, *, start=None, end=None, rate=None):
    """All frames of the clip between start and end again, with the music."""
    info = probe(clip)
    pts = [number * 512 for number in range(60) if (start or 0) * 25 <= number < (end or 99) * 25]
    music = Heard.under(song, (*pts, pts[-1] + 512), info.time_base)
    with VideoWriter(target, info=info, size=(96, 64), music=music, start=start, end=end) as writer:
        for time in pts:
            writer.write(picture(time // 512), time)
    return float(music.seconds)


@pytest.mark.parametrize("target", ["out.mp4", "out.mkv", "out.mov", "out.webm"])
@pytest.mark.parametrize("music", ["song.flac", "song.wav", "song.mp3", "song.m4a", "song.opus"])
def test_clicks_are_heard_where_they_were(clip, tmp_path, music, target):
    song = survey_song(str(click_track(tmp_path / music, 4, TIMES)), "stop", DAY)
    info, pts = probe(clip), [number * 512 for number in range(60)]
    music = Heard.under(song, (*pts, 60 * 512), info.time_base)
    with VideoWriter(tmp_path / target, info=info, size=(96, 64), music=music) as writer:
        for time in pts:
            writer.write(picture(time // 512), time)
    wanted = [time for time in TIMES if time < 2.4]
    assert click_times(tmp_path / target) == pytest.approx(wanted, abs=0.003)
    video, sound = probe(tmp_path / target), spans(tmp_path / target)
    assert float(video.average_rate) == pytest.approx(25)
    assert sound[3] == pytest.approx(2.4, abs=0.04)
    with av.open(str(tmp_path / target)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]  # not the clip's own as well


@pytest.mark.parametrize(
    ("music", "target"), [("song.m4a", "out.mp4"), ("song.mp3", "out.mkv"), ("song.mp3", "out.mp4")]
)
def test_packets_are_copied_where_they_can_be(clip, tmp_path, music, target):
    path = click_track(tmp_path / music, 4, TIMES)
    write(clip, tmp_path / target, survey_song(str(path), "stop", DAY))
    made, source = packets_of(tmp_path / target, "audio"), packets_of(path, "audio")
    assert made == source[: len(made)]


@pytest.mark.parametrize(("target", "codec"), [("out.mp4", "aac"), ("out.mov", "mp3"), ("out.mkv", "mp3")])
def test_mp3_of_few_samples_is_transcoded_for_mp4(clip, tmp_path, caplog, target, codec):
    path = tmp_path / "voice.mp3"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mp3", rate=8000, layout="mono")
        tone = np.sin(np.arange(4 * 8000) * 0.3).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(0.5 * tone, format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux([*stream.encode(frame), *stream.encode()])
    write(clip, tmp_path / target, survey_song(str(path), "stop", DAY))
    with av.open(str(tmp_path / target)) as container:
        assert container.streams.audio[0].codec_context.codec.canonical_name == codec
    assert ("does not hold mp3 of 8 kHz" in caplog.text) == (codec == "aac")


@pytest.mark.parametrize("target", ["out.mp4", "out.mkv"])
def test_lossless_music_ends_with_the_pictures_to_the_sample(clip, tmp_path, target, caplog):
    path = click_track(tmp_path / "song.flac", 4, TIMES)
    seconds = write(clip, tmp_path / target, survey_song(str(path), "stop", DAY))
    wave, start, rate = heard(tmp_path / target)
    assert (start, len(wave)) == (0, round(seconds * rate))
    assert np.array_equal(wave, heard(path)[0][: len(wave)])
    assert "becomes" not in caplog.text


def test_what_a_container_does_not_hold_is_made_over_with_a_line(clip, tmp_path, caplog):
    path = click_track(tmp_path / "song.wav", 4, TIMES)
    write(clip, tmp_path / "out.mp4", survey_song(str(path), "stop", DAY))
    assert "song.wav becomes aac: .mp4 does not hold pcm_s16le" in caplog.text


@pytest.mark.parametrize(
    ("ending", "wanted"), [("loop", [0.25, 0.75, 1.25, 1.75, 2.25]), ("stop", [0.25, 0.75]), ("fade", [0.25])]
)
@pytest.mark.parametrize("music", ["song.flac", "song.m4a"])
def test_music_that_is_too_short(clip, tmp_path, ending, wanted, music):
    path = click_track(tmp_path / music, 1, [0.25, 0.75])
    seconds = write(clip, tmp_path / "out.mp4", survey_song(str(path), ending, DAY))
    found = click_times(tmp_path / "out.mp4")
    assert found[: len(wanted)] == pytest.approx(wanted, abs=0.003)
    assert len(found) == len(wanted) or ending == "fade"
    assert spans(tmp_path / "out.mp4")[3] == pytest.approx(seconds, abs=0.03)
    wave, start, rate = heard(tmp_path / "out.mp4")
    if ending != "loop":
        assert np.abs(wave[round((1.1 - float(start)) * rate) :]).max() < 1e-3


def test_music_that_fades_ends_silently_with_the_video(clip, tmp_path):
    path = tmp_path / "song.flac"
    write_sound(path, np.full((2, 5 * RATE), 0.5, np.float32))
    write(clip, tmp_path / "out.mkv", survey_song(str(path), "fade", DAY))
    wave, _, _ = heard(tmp_path / "out.mkv")
    assert wave[:10] == pytest.approx(0.5 * 2.4 / 3, abs=0.01)  # three seconds of fading, of which 2.4 are there
    assert wave[-10:].max() < 1e-4
    assert np.all(np.diff(wave) <= 1e-4)


def test_a_part_of_a_clip_begins_with_the_music(clip, tmp_path):
    path = click_track(tmp_path / "song.m4a", 4, TIMES)
    seconds = write(clip, tmp_path / "out.mp4", survey_song(str(path), "stop", DAY), start=1, end=2)
    assert seconds == 1
    assert click_times(tmp_path / "out.mp4") == pytest.approx([0.25, 0.75], abs=0.003)


def test_the_length_of_music_is_exact(tmp_path):
    song = survey_song(str(click_track(tmp_path / "song.flac", 1.2345, [0.5])), "loop", DAY)
    assert song.seconds == Fraction(round(1.2345 * RATE), RATE)
    assert song == Song(song.path, song.seconds, song.packet, "loop")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.flac", None, "does not exist"),
        (
            "text.flac",
            b"no music at all " * 99,
            "text.flac is damaged: the rate, channels or samples .* cannot be told",
        ),
        ("empty.mp3", b"", "is not .* that can be read"),
    ],
)
def test_what_is_no_music_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        survey_song(str(tmp_path / name), "stop", DAY)


def test_music_that_is_too_long_is_refused(tmp_path):
    path = click_track(tmp_path / "song.flac", 3, [0.5])
    with pytest.raises(InputError, match=r"is longer than 2 s; .* --max-duration"):
        survey_song(str(path), "stop", Fraction(2))


def test_a_video_without_sound_is_no_music(tmp_path):
    path = make_video(tmp_path / "silent.mp4", frames=3)
    with pytest.raises(InputError, match=r"silent\.mp4 has no sound"):
        survey_song(str(path), "stop", DAY)


@pytest.mark.parametrize("music", ["song.flac", "song.mp3"])
def test_music_can_begin_later(clip, tmp_path, music):
    path = click_track(tmp_path / music, 4, TIMES)
    write(clip, tmp_path / "out.mp4", survey_song(str(path), "loop", DAY, begin=Fraction(5, 2)))
    wanted = [0.25, 0.75, 1.25, 1.75, 2.25]  # 2.75, 3.25, 3.75 and again from 2.5 on
    assert click_times(tmp_path / "out.mp4") == pytest.approx(wanted, abs=0.003)


def test_music_that_ends_before_it_begins_is_refused(tmp_path):
    path = click_track(tmp_path / "song.flac", 1, [0.5])
    with pytest.raises(InputError, match=r"is 1\.00 s long and so ends before --music-start 3"):
        survey_song(str(path), "loop", DAY, begin=Fraction(3))
