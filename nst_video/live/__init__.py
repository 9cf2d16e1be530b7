"""Painting what a camera sees, as it sees it: capture, engine, window, and what else takes the pictures."""

# Before PyAV: both wheels bring a libxcb of their own, and OpenCV's windows hang for ever with that of PyAV's.
import cv2  # noqa: F401
