"""The loss of a frame, its gradient, and the search for its minimum."""
