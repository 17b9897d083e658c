"""The wire: request to body, reply to outcome. Pure."""
