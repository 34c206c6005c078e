"""Programs ask here: handlers that translate requests for the job service."""
