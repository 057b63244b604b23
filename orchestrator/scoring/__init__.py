"""`mirsweep score` and `compare`: pictures and texts in, a report, a table and a picture out."""
