"""End-to-end tests: real servers, real workers, real clients."""
