"""Renders that can be stopped anywhere and gone on with: what is kept on disk, and who may write to it."""
