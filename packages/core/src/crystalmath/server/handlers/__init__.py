"""Handlers of the JSON-RPC methods, one module for each family."""
