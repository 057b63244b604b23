"""Who runs jobs: in this process (`inline`), or as gangs of actors under Ray (`ray_executor`)."""
