"""The command line: defaults are the dataclasses', what it prints goes where it should, it ends as documented."""

import json
import math
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

import pytest
from media import make_video, picture

from nst_video import __version__, plots, reports
from nst_video.arguments import given_options, parse_style
from nst_video.cli import main
from nst_video.commands import live, paint, score
from nst_video.fields import flag_name
from nst_video.jobs.jobfolder import LEDGER
from nst_video.jobs.stopping import TOGETHER, Stopper, Terminated
from nst_video.kinds import Curve
from nst_video.media.pictures import read_picture, write_picture
from nst_video.painting.painted import FrameReport
from nst_video.presets import DREAM_PRESETS
from nst_video.render import Progress
from nst_video.reports import writing_trace
from nst_video.settings import DREAM, PAINT

SAMPLES = Path(__file__).parent.parent / "samples"
FAST = ("--size", "64", "--first-iterations", "8", "--iterations", "2")
PLOT = (360, 600, 3)  # shape of a plot with one panel
FIELDS = [item for section in PAINT for item in section.items]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The current folder, with in.mp4 (5 frames), style.png and b.png."""
    monkeypatch.chdir(tmp_path)
    make_video(tmp_path / "in.mp4", frames=5)
    write_picture(tmp_path / "style.png", picture(3))
    write_picture(tmp_path / "b.png", 255 - picture(5))
    return tmp_path


# ---------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("parser", "words"),
    [(paint.make_parser(), ["i", "s", "o"]), (score.make_parser(), ["i", "o"])],
    ids=["render", "score"],
)
def test_defaults_are_those_of_the_dataclasses(parser, words):
    options = given_options(parser.parse_args(words))
    assert options == {item.name: item.default for item in FIELDS}


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--size", "full"], "size", "full"),
        (["--size", "300"], "size", 300),
        (["--references", "1,3"], "references", (1, 3)),
        (["--style-layers", "relu1_1, relu2_1"], "style_layers", ("relu1_1", "relu2_1")),
        (["--style-layer-weights", "2,0.5"], "style_layer_weights", (2.0, 0.5)),
        (["--keep-colors"], "keep_colors", True),
        (["-y"], "overwrite", True),
        (["--start", "1:02.5"], "start", 62.5),
        (["--device", "cuda:1"], "device", "cuda:1"),
    ],
)
def test_words_become_values(words, name, value):
    assert given_options(paint.make_parser().parse_args(["i", "s", "o", *words]))[name] == value


def test_help_names_every_option_with_its_default(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0
    assert all(flag_name(item.name) in text for item in FIELDS)
    assert "(default: relu1_1,relu2_1,relu3_1,relu4_1,relu5_1)" in text
    assert "nst-video in.mp4 style.jpg out.mp4" in text
    assert "nst-video score" in text


@pytest.mark.parametrize("command", [[], ["score"], ["dream"]])
def test_the_help_of_drives_names_what_the_command_has(capsys, command):
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    (driven,) = re.findall(r"--drive TARGET=FEATURE let what is heard .*? such as (\w+)=", text)
    items = [item for section in (DREAM if command == ["dream"] else PAINT) for item in section.items]
    assert driven in {item.name for item in items if isinstance(item.metadata["kind"], Curve)}


def test_the_help_of_dreams_tells_their_own_network(capsys):
    with pytest.raises(SystemExit):
        main(["dream", "--help"])
    assert {preset["encoder"] for preset in DREAM_PRESETS.values()} == {"vgg19"}
    assert "network whose layers are dreamed (default: vgg19)" in " ".join(capsys.readouterr().out.split())


def test_the_help_of_score_lists_what_decides_something(capsys):
    with pytest.raises(SystemExit):
        main(["score", "--help"])
    text = capsys.readouterr().out
    listed = {item.name for item in FIELDS if re.search(rf"^  .*{flag_name(item.name)}\b(?!-)", text, re.MULTILINE)}
    assert {item.name for item in FIELDS} - listed == set(score.DECIDES_NOTHING)
    assert "replace the reports if they exist" in text


@pytest.mark.parametrize("command", ["dream", "score", "status", "info"])
def test_the_other_commands_have_help(capsys, command):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert f"nst-video {command}" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert (end.value.code, capsys.readouterr().out) == (0, f"nst-video {__version__}\n")


def test_a_file_named_like_its_own_weight_is_a_file(files):
    (files / "a=0.5").touch()
    assert parse_style("a=0.5") == ("a=0.5", 1.0)
    assert parse_style("b=0.5") == ("b", 0.5)
    assert parse_style("b=c.png") == ("b=c.png", 1.0)


# ---------------------------------------------------------------------------------------------- the main job


def test_the_main_job_on_the_samples(tmp_path, capsys):
    output = tmp_path / "out.mp4"
    words = [str(SAMPLES / "bunny.mp4"), str(SAMPLES / "oil.jpg"), str(output), "--end", "0.2", "--json", *FAST]
    assert main(words) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert (result["output"], result["frames"], result["size"]) == (str(output), 5, [64, 36])
    assert result["seconds_per_frame"] > 0
    assert {"content", "style", "tv", "temporal", "loss"} <= set(result["losses"])
    assert 0 <= result["drift"] < 1
    assert "frame 5 of 5" in printed.err
    assert re.search(r"5 frames of 64x36 .*, drift \d\.\de-\d\d\)", printed.err)
    assert "E_warp" not in printed.err  # which is what the score measures


def test_nothing_is_printed_on_stdout_without_json(files, capsys):
    assert main(["in.mp4", "style.png", "look.png", "--still", "0.1", *FAST]) == 0
    assert capsys.readouterr().out == ""


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn into plots, in a list."""
    found = []
    for name in ("trace_figure", "score_figure"):
        draw = getattr(plots, name)
        monkeypatch.setattr(plots, name, lambda what, *title, draw=draw: found.append(what) or draw(what, *title))
    return found


def test_trace_and_contact_sheet(files, drawn):
    words = ["in.mp4", "style.png", "out.mp4", "--style", "b.png=0.5", "--trace", "t.jsonl", "--contact-sheet", "s.png"]
    assert main([*words, *FAST]) == 0
    rows = [json.loads(line) for line in (files / "t.jsonl").read_text().splitlines()]
    assert [row["frame"] for row in rows] == [0, 1, 2, 3, 4]
    assert [len(row["trace"]) for row in rows] == [row["evaluations"] for row in rows]
    assert [sum(row["terms"][name][-1] for name in row["terms"]) for row in rows] == pytest.approx(
        [row["trace"][-1] for row in rows]
    )
    assert drawn == [{f"frame {row['frame']}": tuple(row["trace"]) for row in rows}]
    assert read_picture(files / "t.png").shape == PLOT
    height, width = read_picture(files / "s.png").shape[:2]
    assert (height, width) == (4 * (42 + 4) + 4, 4 * (64 + 4) + 4)  # 5 pairs in rows of 4


def test_the_rest_of_a_removed_job_goes_even_where_its_reports_stand_in_the_way(files, capsys):
    """As after a kill in the middle of the last thing a render does."""
    (files / "out.mp4").touch()
    (files / "t.jsonl").touch()
    rest = files / "out.mp4.nst"
    rest.mkdir()
    (rest / LEDGER).write_text("{}")
    (rest / "lock").touch()
    assert main(["in.mp4", "style.png", "out.mp4", "--trace", "t.jsonl", *FAST]) == 2
    assert "t.jsonl exists; give -y" in capsys.readouterr().err
    assert not rest.exists()


def test_a_trace_stays_json_where_a_loss_was_not_finite(tmp_path, drawn):
    rgb = picture(0)
    report = FrameReport(0, 0, 0.0, 0, 3, 1, {"loss": 0.5}, None, 1.0)
    with writing_trace(tmp_path / "t.jsonl") as watch:
        watch(Progress(1, 1, 1.0, report, (1.0, math.inf, math.nan, 0.5), {"tv": (math.nan, 0.1)}, rgb, rgb))
    row = json.loads((tmp_path / "t.jsonl").read_text())
    assert row["trace"] == [1.0, None, None, 0.5]
    assert row["terms"] == {"tv": [None, 0.1]}
    assert [[value for value in curve if math.isfinite(value)] for curve in drawn[0].values()] == [[1.0, 0.5]]
    assert read_picture(tmp_path / "t.png").shape == PLOT


def test_lack_of_memory_is_one_line(files, capsys, monkeypatch):
    def fail(*args, **options):
        raise MemoryError

    monkeypatch.setattr("nst_video.jobs.resume.make_plan", fail)
    assert main(["in.mp4", "style.png", "out.mp4"]) == 4
    assert capsys.readouterr().err.startswith("nst-video: error: not enough memory; choose a smaller --size")


def test_a_trace_without_matplotlib_has_its_lines_and_no_plot(files, capsys, monkeypatch):
    monkeypatch.setattr(reports, "can_plot", lambda: False)
    assert main(["in.mp4", "style.png", "out.mp4", "--trace", "t.jsonl", *FAST]) == 0
    said = 'warning: t.jsonl gets no plot beside it, which needs matplotlib: pip install ".[plots]"'
    assert capsys.readouterr().err.startswith(f"nst-video: {said}")
    assert len((files / "t.jsonl").read_text().splitlines()) == 5
    assert not (files / "t.png").exists()


def test_a_plot_without_matplotlib_is_refused_before_the_render(files, capsys, monkeypatch):
    monkeypatch.setattr(reports, "can_plot", lambda: False)
    assert main(["in.mp4", "style.png", "out.mp4", "--plot", "p.png", *FAST]) == 4
    assert 'needs matplotlib, which is not installed: pip install ".[plots]"' in capsys.readouterr().err
    assert not (files / "out.mp4").exists()


REPORTS = {"": ("--trace", "--plot", "--contact-sheet"), "score": ("--csv", "--plot"), "status": ("--play",)}


@pytest.mark.parametrize(
    ("command", "option"), [(command, option) for command, options in REPORTS.items() for option in options]
)
@pytest.mark.parametrize(("name", "fault"), [(".", "is a folder"), ("/", "is a folder"), ("", "has no name")])
def test_a_report_that_can_be_no_file_is_refused(files, capsys, command, option, name, fault):
    words = {"": ["in.mp4", "style.png", "out.mp4"], "score": ["in.mp4", "in.mp4"], "status": ["out.mp4"]}[command]
    assert main([*([command] if command else []), *words, option, name]) == 2
    assert re.fullmatch(f"nst-video: error: {option} .* {fault}; give it the name of a file\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("command", "option"), [(command, option) for command, options in REPORTS.items() for option in options]
)
def test_a_report_has_one_file(files, capsys, command, option):
    words = {"": ["in.mp4", "style.png", "out.mp4"], "score": ["in.mp4", "in.mp4"], "status": ["out.mp4"]}[command]
    assert main([*([command] if command else []), *words, option, "a.png", option, "b.png"]) == 2
    assert capsys.readouterr().err == f"nst-video: error: {option} is given twice, as a.png and b.png; give it once\n"


def test_output_is_replaced_only_when_asked(files, capsys):
    (files / "look.png").write_bytes(b"mine")
    words = ["in.mp4", "style.png", "look.png", "--still", "0", *FAST]
    assert main(words) == 2
    assert (files / "look.png").read_bytes() == b"mine"
    assert main([*words, "-y"]) == 0
    assert read_picture(files / "look.png").shape == (42, 64, 3)


def test_remarks_about_the_input_show_once(files, capsys):
    make_video(files / "old.mkv", frames=4, interlaced=True, codec="libx264")
    assert main(["old.mkv", "style.png", "out.mp4", *FAST]) == 0
    remarks = [line for line in capsys.readouterr().err.splitlines() if "interlaced" in line]
    assert len(remarks) == 1


# ---------------------------------------------------------------------------------------------- score and info


@pytest.fixture
def painted(files):
    assert main(["in.mp4", "style.png", "out.mp4", *FAST]) == 0
    return files


def test_score_prints_coherence_and_style_together(painted, capsys):
    capsys.readouterr()
    assert main(["score", "in.mp4", "out.mp4", "--style", "style.png"]) == 0
    text = capsys.readouterr().out
    assert "E_warp" in text
    assert "style distance" in text


def test_score_takes_the_encoder_of_the_render_and_judges_by_vgg19(painted, capsys):
    found = []
    for encoder in ("slim", "vgg19"):
        capsys.readouterr()
        assert main(["score", "in.mp4", "out.mp4", "--style", "style.png", "--encoder", encoder, "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out)["style"])
    assert found[0] == found[1]


def test_score_as_json_csv_and_plot(painted, capsys, drawn):
    capsys.readouterr()
    words = ["score", "in.mp4", "out.mp4", "--style", "style.png", "--json", "--csv", "s.csv", "--plot", "s.png"]
    assert main([*words, "--reference", "1", *FAST]) == 0
    score = json.loads(capsys.readouterr().out)
    assert score["frames"] == 5
    assert score["reference"]["frames"] > 0
    assert len((painted / "s.csv").read_text().splitlines()) == 1 + 5
    assert [row["frame"] for row in drawn[-1]] == [0, 1, 2, 3, 4]
    assert fmean(row["style"] for row in drawn[-1]) == pytest.approx(score["style"])
    assert read_picture(painted / "s.png").shape == (2 * PLOT[0], 2 * PLOT[1], 3)  # four panels


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["score", "in.mp4", "in.mp4"], "score needs the style picture: --style FILE"),
        (["score", "in.mp4", "in.mp4", "--style", "style.png", "--reference", "-1"], "--reference -1 is out of range"),
        (["score", "in.mp4", "in.mp4", "--style", "style.png", "--csv", "in.mp4"], "in.mp4 is named twice"),
        (["score", "in.mp4", "in.mp4", "--style", "style.png", "--plot", "b.png"], "b.png exists; give -y"),
    ],
)
def test_score_used_wrongly(files, capsys, words, message):
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_info_says_where_things_are(capsys):
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["nst-video"] == __version__
    assert facts["packages"]["torch"]
    assert "cpu" in facts["devices"]
    assert facts["encoders"]["vgg19"]["weights"] == "in the package"
    assert Path(facts["encoders"]["vgg19"]["path"]).is_file()


def test_info_for_people(capsys):
    assert main(["info"]) == 0
    assert re.search(r"vgg19: in the package, .*vgg19\.safetensors", capsys.readouterr().out)


# ---------------------------------------------------------------------------------------------- how it ends


def test_debug_shows_where_an_error_came_from(files, capsys):
    assert main(["gone.mp4", "style.png", "out.mp4", "--debug"]) == 3
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert printed.splitlines()[-1].startswith("nst-video: error: gone.mp4")


SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}
# A test run in the background of a shell inherits an ignored SIGINT, which the program would leave ignored.
HEED = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
runpy.run_module("nst_video", run_name="__main__")
"""


@contextmanager
def running(*words):
    """The program with these words, as a process of its own; ended if it is still there afterwards."""
    with subprocess.Popen([sys.executable, "-c", HEED, *words], stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("name", SIGNALS)
def test_one_signal_saves_and_the_same_command_goes_on(files, name):
    words = ["in.mp4", "style.png", "out.mp4", "--size", "64", "--first-iterations", "2", "--iterations", "12"]
    with running(*words) as process:
        assert "frame 1 of 5" in process.stderr.readline()
        process.send_signal(getattr(signal, name))
        said = process.stderr.read().splitlines()
        assert process.wait(timeout=60) == 5
    assert "finishing this frame and saving; a second signal stops at once" in said[0]
    assert re.search(
        r"stopped after frame \d of 5; .* kept in out.mp4.nst; to go on: nst-video in.mp4 style.png", said[-1]
    )
    assert not (files / "out.mp4").exists()
    with running(*words) as process:
        said = process.stderr.read()
        assert process.wait(timeout=60) == 0
    assert re.search(r"resuming at frame \d of 5\n", said)
    assert sorted(path.name for path in files.iterdir()) == ["b.png", "in.mp4", "out.mp4", "style.png"]


@pytest.mark.parametrize("name", SIGNALS)
def test_a_second_signal_stops_at_once(files, name):
    before = set(files.iterdir())
    words = ["in.mp4", "style.png", "out.mp4", "--size", "64", "--first-iterations", "2", "--iterations", "100000"]
    with running(*words) as process:
        assert "frame 1 of 5" in process.stderr.readline()
        process.send_signal(getattr(signal, name))
        assert "finishing this frame" in process.stderr.readline()
        time.sleep(1.5 * TOGETHER)
        process.send_signal(getattr(signal, name))
        rest = process.stderr.read()
        assert process.wait(timeout=60) == SIGNALS[name]
    assert rest.splitlines()[-1].startswith("nst-video: error: ")
    assert "Traceback" not in rest
    assert set(files.iterdir()) == before  # nothing was finished that could be gone on with


def test_a_live_session_that_is_stopped_at_once_says_what_is_left(files, monkeypatch):
    def twice(*args, **options):
        signal.raise_signal(signal.SIGTERM)
        time.sleep(1.5 * TOGETHER)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("nst_video.live.start.run_live", twice)
    stopper = Stopper(lambda line: None)
    with stopper.heeding(), pytest.raises(Terminated):
        live.run(["style.png"], stopper)
    assert stopper.kept == "a recording that was not complete yet is left as NAME.unfinished.mkv"


def test_signals_that_come_together_are_one():
    said = []
    stopper = Stopper(said.append)
    with stopper.heeding(), stopper.patience() as asked:
        signal.raise_signal(signal.SIGTERM)
        assert asked()
        signal.raise_signal(signal.SIGTERM)
        assert (asked(), stopper.signal, len(said)) == (True, signal.SIGTERM, 1)
    stopper = Stopper(said.append)
    with stopper.heeding():
        try:
            signal.raise_signal(signal.SIGTERM)
        except Terminated:
            signal.raise_signal(signal.SIGTERM)  # the clean-up is not interrupted


def test_a_signal_before_the_render_stops_at_once(files, capsys, monkeypatch):
    def interrupted(*args, **options):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("nst_video.jobs.resume.make_plan", interrupted)
    assert main(["in.mp4", "style.png", "out.mp4", *FAST]) == 143
    assert capsys.readouterr().err == "nst-video: error: terminated; no output was written\n"


@pytest.mark.parametrize("words", ["--help", "info", "info --json", "dream --list-layers vgg19", "live --help"])
def test_a_reader_that_has_enough_ends_the_program_quietly(words):
    command = [sys.executable, "-m", "nst_video", *words.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode in ((0, 141) if "--help" in words else (141,))  # argparse overlooks it by itself


def test_the_program_can_be_run_as_a_module():
    result = subprocess.run(
        [sys.executable, "-m", "nst_video", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout == f"nst-video {__version__}\n"
