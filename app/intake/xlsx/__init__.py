"""Reads Excel workbooks (.xlsx, .xlsm) as a stream."""
