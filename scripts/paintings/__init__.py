"""Generators of style pictures: each module paints one picture from a size and a seed."""
