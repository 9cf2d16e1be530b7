"""Music as curves: what is heard in a sound, at the exact times of frames, and what it drives.

    found = conduct({"dream": dream}, options, times, end=end, own=info, zero=zero, layers=2)
    plan = Plan(..., dream=found.groups["dream"], curves=found.curves)
    plots.plot_music(found.music, found.curves, found.clock, "plot.png")

conduct.py is all that a plan needs. heard.py listens and lays the music along the video; drives.py says what drives
what; sound.py decodes, in a process of its own; features.py and beats.py say what is in it, on a grid of cells of 5 ms
that knows nothing of frames; envelopes.py makes of that what the frames show.
"""
