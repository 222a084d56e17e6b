"""Portal mode: files that people upload, and the outcomes that they record."""
