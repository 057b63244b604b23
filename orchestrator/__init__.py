"""Who runs it, who remembers, who shows it? Controller, executors, trackers, reports, commands."""
