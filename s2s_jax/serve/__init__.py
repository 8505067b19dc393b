"""The server: trained and exported runs behind a JSON interface, requests of many clients in common batches."""
