"""The service about itself: catalogues, limits, status, metrics, and the caller's own key."""
