"""The REST API: server, limits, authentication, admission."""
