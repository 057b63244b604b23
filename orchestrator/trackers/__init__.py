"""Who remembers a sweep for people: in memory (`memory`), or MLflow (`mlflow_tracker`)."""
