"""Portal mode: files for a person, and the outcomes that a person records."""
