"""Optical flow, how far it can be trusted, and what is painted where no earlier frame shows anything."""
