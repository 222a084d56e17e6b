"""Support for tests: servers, the world that they act in, and checks that they share."""
