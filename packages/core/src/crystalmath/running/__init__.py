"""Jobs that run: their engines, what is written of them, and how lost ones are recovered."""
