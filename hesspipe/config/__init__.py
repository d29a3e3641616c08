"""The configuration file: its schema, its checks, and the results that its entries read."""
