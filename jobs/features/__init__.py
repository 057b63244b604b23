"""Vision features of a frozen encoder: computed once, kept on disk, shared by all trials."""
