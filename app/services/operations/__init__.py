"""Operations: the sweep, status, limits, retention, removal and key rotation."""
