"""The command line with the tests' painter in `live`: run as a process of its own, arguments as of nst-video."""

import os
import signal
import sys
from functools import partial

from live_tools import TwistPainter

from nst_video import cli
from nst_video.commands import live

if __name__ == "__main__":
    # A test run in the background of a shell inherits an ignored SIGINT, which the program would leave ignored.
    for name, handler in {
        "SIGINT": signal.default_int_handler,
        "SIGTERM": signal.SIG_DFL,
        "SIGHUP": signal.SIG_DFL,
    }.items():
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), handler)
    seconds = float(os.environ.get("SECONDS_A_FRAME", "0"))
    live.run = partial(live.run, make_painter=lambda options, machine: TwistPainter(seconds))
    sys.exit(cli.main())
