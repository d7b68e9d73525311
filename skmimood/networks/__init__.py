"""The networks, in torch alone: they know nothing of estimators, files or caching."""
