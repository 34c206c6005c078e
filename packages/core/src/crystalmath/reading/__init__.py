"""Look at jobs without engines and without SQLAlchemy: states, results, events and answers."""
