"""Webhook endpoints, their signing secrets, and deliveries."""
