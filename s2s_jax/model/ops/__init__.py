"""The operations that the network is built of: products, scans, initial values, dropout."""
