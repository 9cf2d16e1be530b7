"""From frames to painted frames: the stylizer, what it carries on, its teacher, and lanes side by side."""
