"""The published contract: the OpenAPI document, shared shapes, and problem details."""
