"""`python -m nst_video`: the command line."""

from nst_video.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
