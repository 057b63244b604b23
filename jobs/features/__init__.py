"""Vision features of a frozen encoder: computed once, kept on disk, shared by all trials."""

FOLDER = "features"
"""Where a study keeps them, in its own folder or a job's."""
