"""Music as curves: what is heard in a sound, at the exact times of frames, and what it drives.

    music = hear(options, own=info, zero=zero, seconds=seconds)        # heard.py: None where nothing asks for any
    drives = parse_drives(options.drive)                               # drives.py: "step=onset*0.5,release=0.2"
    groups, curves = settle_curves(groups, clock, music, drives)       # curves.py: one value for each frame

sound.py decodes, in a process of its own; features.py and beats.py say what is in it, on a grid of cells of 5 ms that
knows nothing of frames; envelopes.py makes of that what the frames show.
"""
