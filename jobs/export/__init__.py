"""A checkpoint as a folder that others can load, without mirsweep where that is possible."""
