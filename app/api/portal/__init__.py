"""Portal mode over HTTP."""
