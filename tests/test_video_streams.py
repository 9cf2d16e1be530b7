"""What becomes of sound, subtitles, chapters, metadata and the rest, container by container."""

from fractions import Fraction
from pathlib import Path

import av
import media
import numpy as np
import pytest

from nst_video.media import streams
from nst_video.media.containers import unit
from nst_video.media.probe import probe
from nst_video.media.treatments import HOLDS, fresh_metadata
from nst_video.media.video import VideoReader, VideoWriter


def copy(source: Path, target: Path, **span) -> Path:
    codec = "libvpx-vp9" if target.suffix == ".webm" else "libx264"
    reader = VideoReader(source, **span)
    settings = {"codec": codec, "crf": 20, "preset": "ultrafast"}
    with VideoWriter(target, info=reader.info, size=reader.size, **settings, **span) as writer:
        for frames in reader:
            writer.write(frames.rgb, frames.pts)
    return target


def kinds(path: Path) -> list[tuple[str, str]]:
    """(kind, codec) of the streams beside the video; mp4's hidden track of chapter titles left out."""
    with av.open(str(path)) as container:
        others = [stream for stream in container.streams if stream.index != 0 and stream.name != "bin_data"]
        return [
            (s.type, s.codec_context.codec.canonical_name if s.codec_context is not None else "none") for s in others
        ]


def lines(path: Path) -> list[tuple[Fraction, str]]:
    """(time in seconds, text) of every line of subtitles."""
    with av.open(str(path)) as container:
        found = []
        for packet in container.demux(subtitles=0):
            if packet.size:
                time = packet.pts * Fraction(packet.time_base)
                found += [(time, line.dialogue.decode()) for line in packet.decode() if line.dialogue]
        return found


@pytest.mark.parametrize(
    ("source", "sound", "target", "found"),
    [
        (".mp4", "aac", ".mp4", "aac"),
        (".mp4", "aac", ".mov", "aac"),
        (".mp4", "aac", ".mkv", "aac"),
        (".mp4", "aac", ".webm", "opus"),
        (".mov", "pcm_s16le", ".mp4", "aac"),
        (".mov", "pcm_s16le", ".mov", "pcm_s16le"),
        (".mov", "pcm_s24le", ".mkv", "pcm_s24le"),
        (".mov", "pcm_s16le", ".webm", "opus"),
        (".mkv", "flac", ".mp4", "flac"),
        (".mkv", "ac3", ".mp4", "ac3"),
        (".mkv", "libopus", ".mov", "aac"),
        (".mkv", "libopus", ".webm", "opus"),
        (".mp4", "mp3", ".mkv", "mp3"),
        (".avi", "pcm_s16le", ".mp4", "aac"),
        (".ts", "aac", ".mp4", "aac"),
    ],
)
def test_sound_is_copied_or_made_over_in_step(tmp_path, caplog, source, sound, target, found):
    options = {"codec": "mpeg4", "time_base": Fraction(1, 25)} if source == ".avi" else {}
    clip = media.make_video(tmp_path / f"clip{source}", sound=sound, **options)
    copied = copy(clip, tmp_path / f"out{target}")
    assert kinds(copied) == [("audio", found)]
    made_over = sound not in (found, f"lib{found}")
    assert ("is made over" in caplog.text) == made_over
    before, start_before = media.decode_sound(clip)
    after, start_after = media.decode_sound(copied)
    origin = probe(clip).origin_pts * probe(clip).time_base
    # The same sound at the same times: compared over the part both have, away from the ends.
    offset = round((start_after - start_before + origin) * 48000)
    first, count = 8000, 30000
    lag = _lag(before[first + offset : first + offset + count], after[first : first + count])
    assert abs(lag) <= 48  # a millisecond: the clock of mkv


def _lag(before: np.ndarray, after: np.ndarray) -> int:
    """Samples by which `after` is late: the peak of the cross-correlation."""
    size = len(before) + len(after)
    product = np.fft.irfft(np.conj(np.fft.rfft(before, size)) * np.fft.rfft(after, size), size)
    peak = int(np.argmax(product))
    return peak if peak < size // 2 else peak - size


def test_a_cut_made_over_is_in_step_too(tmp_path):
    clip = media.make_video(tmp_path / "clip.mov", sound="pcm_s16le", frames=48)
    span = {"start": Fraction(10, 25), "end": Fraction(40, 25)}
    copied = copy(clip, tmp_path / "out.mp4", **span)
    before, _ = media.decode_sound(clip)
    after, start = media.decode_sound(copied)
    assert 0 <= start < Fraction(1024, 48000) + Fraction(1024, 48000)
    assert abs(len(after) / 48000 - 1.2) < 0.05
    first = round((Fraction(10, 25) + start) * 48000)
    assert abs(_lag(before[first + 8000 : first + 28000], after[8000:28000])) <= 2


@pytest.mark.parametrize(
    ("source", "codec", "target", "found"),
    [
        (".mkv", "ass", ".mkv", "ass"),
        (".mkv", "ass", ".mp4", "mov_text"),
        (".mkv", "subrip", ".mkv", "subrip"),
        (".mkv", "subrip", ".mov", "mov_text"),
        (".mkv", "ass", ".webm", "webvtt"),
        (".mp4", "mov_text", ".mp4", "mov_text"),
        (".mp4", "mov_text", ".mkv", "ass"),
    ],
)
def test_subtitles_keep_their_words_and_times(tmp_path, caplog, source, codec, target, found):
    clip = media.make_video(tmp_path / f"clip{source}", subtitles=codec)
    copied = copy(clip, tmp_path / f"out{target}")
    assert kinds(copied) == [("subtitle", found)]
    expected = [(Fraction(number, 5), f"line at {number * 200}") for number in range(4)]
    assert [(time, text) for time, text in lines(copied) if text] == expected
    assert ("is made over" in caplog.text) == (codec != found)


def test_subtitles_move_with_a_cut(tmp_path):
    clip = media.make_video(tmp_path / "clip.mkv", subtitles="ass")
    for target in ("out.mkv", "out.mp4"):
        copied = copy(clip, tmp_path / target, start=Fraction(10, 25))
        found = [(time, text) for time, text in lines(copied) if text]
        assert found == [(Fraction(0), "line at 400"), (Fraction(1, 5), "line at 600")]


@pytest.mark.parametrize("codec", ["ass", "subrip"])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".webm"])
def test_subtitles_are_cut_with_the_picture(tmp_path, codec, suffix):
    """What is on screen at the start is so from then on, and nothing outlasts the end."""
    clip = media.make_video(tmp_path / "clip.mkv", subtitles=codec)
    copied = copy(clip, tmp_path / f"out{suffix}", start=Fraction(44, 100), end=Fraction(65, 100))
    with av.open(str(copied)) as container:
        packets = [packet for packet in container.demux(subtitles=0) if b"line" in bytes(packet)]
        shown = [(packet.pts * unit(packet), packet.duration * unit(packet)) for packet in packets]
    assert shown == [(0, Fraction(6, 100)), (Fraction(16, 100), Fraction(5, 100))]
    assert [text for _, text in lines(copied) if text] == ["line at 400", "line at 600"]


def test_a_line_that_begins_long_before_a_cut_is_on_screen_in_it(tmp_path):
    settings = {"rate": Fraction(1), "frames": 12, "options": {"g": "1"}}
    clip = media.make_video(tmp_path / "clip.mkv", subtitles="subrip", line_shown=8000, **settings)
    copied = copy(clip, tmp_path / "out.mkv", start=9, end=10)
    kept = range(1200, 10_000, 200)
    assert lines(copied) == [(max(Fraction(time, 1000) - 9, 0), f"line at {time}") for time in kept]


def test_what_a_container_does_not_hold_is_left_out_with_a_line(tmp_path, caplog):
    clip = media.make_video(tmp_path / "clip.mkv", sound="aac", attachment=b"font")
    assert kinds(copy(clip, tmp_path / "out.mp4")) == [("audio", "aac")]
    assert "attachment stream 2 is left out: .mp4 does not hold it" in caplog.text
    assert kinds(copy(clip, tmp_path / "out.mkv")) == [("audio", "aac"), ("attachment", "none")]
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.streams[2].data == b"font"


def test_a_data_track_is_left_out_with_a_line(tmp_path, caplog):
    clip = media.make_video(tmp_path / "clip.mov", metadata={"timecode": "01:00:00:00"})
    assert [stream.kind for stream in probe(clip).streams] == ["data"]
    assert kinds(copy(clip, tmp_path / "out.mov")) == []
    assert "data stream 1 is left out: it has no meaning for the new pictures" in caplog.text


def test_a_cover_picture_is_kept_in_mp4(tmp_path, caplog):
    clip = media.add_cover(tmp_path / "clip.mp4", media.make_video(tmp_path / "plain.mp4", sound="aac"))
    copied = copy(clip, tmp_path / "out.mp4")
    assert kinds(copied) == [("audio", "aac"), ("video", "png")]
    with av.open(str(clip)) as before, av.open(str(copied)) as after:
        pictures = [[bytes(p) for p in c.demux(c.streams[2]) if p.size] for c in (before, after)]
    assert pictures[0] == pictures[1] != []
    copy(clip, tmp_path / "out.mkv")
    assert "video stream 2 is left out: .mkv gets no cover picture" in caplog.text


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_chapters_and_metadata_are_carried(tmp_path, suffix):
    notes = {"title": "a walk", "comment": "in the rain", "encoder": "something old"}
    clip = media.make_video(tmp_path / f"clip{suffix}", chapters=True, sound="aac", metadata=notes)
    copied = copy(clip, tmp_path / f"out{suffix}")
    assert probe(copied).chapters == probe(clip).chapters
    assert len(probe(copied).chapters) == 2
    with av.open(str(copied)) as container:
        found = {key.lower(): value for key, value in container.metadata.items()}
        assert (found["title"], found["comment"]) == ("a walk", "in the rain")
        assert "something old" not in found.values()


def test_chapters_are_clipped_to_a_cut(tmp_path):
    clip = media.make_video(tmp_path / "clip.mkv", chapters=True)
    copied = copy(clip, tmp_path / "out.mkv", start=Fraction(10, 25), end=Fraction(20, 25))
    found = [(chapter.start, chapter.end, chapter.title) for chapter in probe(copied).chapters]
    assert found == [(0, Fraction(80, 1000), "first"), (Fraction(80, 1000), Fraction(400, 1000), "second")]


def test_languages_and_titles_of_streams_are_carried(tmp_path):
    plain = media.make_video(tmp_path / "plain.mp4", sound="aac")
    clip = tmp_path / "clip.mp4"
    with av.open(str(plain)) as reader, av.open(str(clip), "w") as container:
        carried = {s.index: container.add_stream_from_template(s, opaque=True) for s in reader.streams}
        carried[0].metadata["language"] = "fra"
        carried[1].metadata["language"] = "deu"
        for packet in reader.demux():
            if packet.size:
                packet.stream = carried[packet.stream.index]
                container.mux(packet)
    for target in ("out.mp4", "out.mkv"):
        with av.open(str(copy(clip, tmp_path / target))) as container:
            assert [stream.language for stream in container.streams] == ["fra", "deu"]


def test_metadata_about_the_old_file_is_dropped():
    kept = {"title": "a", "creation_time": "2024-01-01T00:00:00Z", "language": "deu"}
    stale = {
        "rotate": "90",
        "ENCODER": "x",
        "DURATION": "1",
        "BPS-eng": "1",
        "major_brand": "isom",
        "_STATISTICS_TAGS": "x",
    }
    assert fresh_metadata(kept | stale) == kept


def test_sound_far_from_the_pictures_in_the_file_does_not_hold_up_or_pile_up(tmp_path):
    """Sound that starts half a second late still ends at its own times."""
    clip = media.make_video(tmp_path / "clip.mkv", sound="aac", sound_start=Fraction(1, 2), frames=48)
    copied = copy(clip, tmp_path / "out.mp4")
    expected, found = media.packet_times(clip, "audio"), media.packet_times(copied, "audio")
    assert len(expected) == len(found)
    assert max(abs(before - after) for before, after in zip(expected, found, strict=True)) < Fraction(1, 1000)
    assert media.packets_of(copied, "audio") == media.packets_of(clip, "audio")


def test_a_damaged_packet_of_sound_does_not_end_the_video(tmp_path):
    clip = media.make_video(tmp_path / "clip.mkv", sound="flac", frames=24)
    with av.open(str(clip)) as container:
        place, size = [(p.pos, p.size) for p in container.demux(audio=0) if p.size][4]
    data = bytearray(clip.read_bytes())
    for offset in range(place + size // 2, place + size):
        data[offset] ^= 0x55
    clip.write_bytes(data)
    copied = copy(clip, tmp_path / "out.webm")
    assert kinds(copied) == [("audio", "opus")]
    assert sum(len(frames.pts) for frames in VideoReader(copied)) == 24


def test_every_container_says_what_it_holds():
    from nst_video.media.codecs import CONTAINERS

    assert set(HOLDS) == set(CONTAINERS)
    for holds in HOLDS.values():
        assert av.Codec(holds.sound_encoder, "w").type == "audio"
        assert av.Codec(holds.text_encoder, "w").canonical_name in holds.subtitles


def test_a_title_in_an_unknown_encoding_is_no_reason_to_refuse_a_file(tmp_path):
    clip = media.make_video(tmp_path / "clip.mp4", metadata={"title": "un cafe"})
    clip.write_bytes(clip.read_bytes().replace(b"un cafe", b"un caf\xe9"))  # Latin-1, where UTF-8 is due
    with av.open(str(copy(clip, tmp_path / "out.mp4"))) as container:
        assert container.metadata["title"].startswith("un caf")


def test_a_cut_late_in_a_long_file_is_found_by_seeking(tmp_path, monkeypatch):
    sought = []
    skip = streams._skip_to
    monkeypatch.setattr(streams, "_skip_to", lambda source, cut: sought.append(cut.first) or skip(source, cut))
    pts = [number * 2560 for number in range(45)]  # 5 frames a second, 9 seconds
    for suffix in (".mp4", ".mkv"):
        clip = media.make_video(tmp_path / f"clip{suffix}", pts=pts, rate=Fraction(5), sound="aac")
        copied = copy(clip, tmp_path / f"out{suffix}", start=Fraction(7))
        before = zip(media.packet_times(clip, "audio"), media.packets_of(clip, "audio"), strict=True)
        assert media.packets_of(copied, "audio") == [data for time, data in before if time >= 7]
    assert sought == [7, 7]
