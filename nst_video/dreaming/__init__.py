"""DeepDream for video: what is dreamed, how it is climbed, and how it stays with the things in the picture."""
