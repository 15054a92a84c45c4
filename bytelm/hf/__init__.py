"""Models of bytes for transformers: classes for its Auto… doors, and folders that carry their own code."""
