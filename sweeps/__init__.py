"""Which run next, and which to stop? Recipes, search space, mixtures, study, stopping rules."""
