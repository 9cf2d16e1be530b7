"""The parts of `scripts/distill.py`: what a student learns from, where it starts, and what it is shown of its own."""
